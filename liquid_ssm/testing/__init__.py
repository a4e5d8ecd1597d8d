"""What tests of backends are made of; needs the extra `test`."""
