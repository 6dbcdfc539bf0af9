"""Records in the forms of other programs, one small file each."""
