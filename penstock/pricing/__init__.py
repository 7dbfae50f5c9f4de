"""What it cost: a table of prices with dates, and the cost of one request, exactly."""
