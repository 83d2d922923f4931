"""What an audit is made of: records of changes, and seals that prove that none was touched."""
