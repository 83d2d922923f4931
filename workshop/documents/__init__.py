"""What lesson 08 does with documents: each module is one experiment, on a real MongoDB."""
