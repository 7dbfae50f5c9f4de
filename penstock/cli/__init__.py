"""What people type. One module per verb or noun; each loads the rooms it needs when it runs, so that help is fast."""
