"""What the page is made of: HTML, style and script."""
