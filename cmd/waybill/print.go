package main

import (
	"encoding/json"
	"io"
)

func printJSON(w io.Writer, v any) error { return json.NewEncoder(w).Encode(v) }
