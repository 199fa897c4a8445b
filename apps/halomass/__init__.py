"""halomass."""
