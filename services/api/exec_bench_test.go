package api

import "testing"

// BenchmarkExecRate is how many exec requests a second 64 clients get acknowledged by the log, beside 64 raw publishers.
// It is the same measurement as BenchmarkAppendHTTP: what an append over HTTP costs and how many execs a second there are
// is one figure.
func BenchmarkExecRate(b *testing.B) { BenchmarkAppendHTTP(b) }
