"""One file for each thing that ./demo can show, and `table`, how it looks."""
