"""The one file: text in, values out, errors with the line they are on."""
