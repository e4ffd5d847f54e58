"""What a simulation measured: rows in, tables and run directories out."""
