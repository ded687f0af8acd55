"""Networks: building, freezing, importing."""
