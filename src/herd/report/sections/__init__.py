"""The sections of the page, one file each: a function from its part of the data to Html."""
