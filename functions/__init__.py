"""What is computed: each folder is one deployed function, the plain files beside them are what several functions share."""
