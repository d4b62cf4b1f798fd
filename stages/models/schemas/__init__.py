"""What config.yaml of each family may say: a typed schema a file, and `section` that checks one."""
