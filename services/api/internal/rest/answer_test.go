package rest

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestInstant(t *testing.T) {
	for text, at := range map[string]time.Time{
		`null`:                             {},
		`"2026-01-02T03:04:05Z"`:           time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		`"2026-01-02T03:04:05.100Z"`:       time.Date(2026, 1, 2, 3, 4, 5, 100_000_000, time.UTC),
		`"2026-01-02T03:04:05.000010Z"`:    time.Date(2026, 1, 2, 3, 4, 5, 10_000, time.UTC),
		`"2026-01-02T02:04:05.000000001Z"`: time.Date(2026, 1, 2, 3, 4, 5, 1, time.FixedZone("", 3600)),
	} {
		got, err := json.Marshal(instant(at))
		require.NoError(t, err)
		require.Equal(t, text, string(got))
	}
}

func TestAcceptsJSON(t *testing.T) {
	for accept, want := range map[string]bool{
		"": false, "*/*": false, "text/html": false, "application/json": true, "application/problem+json": true,
		"text/html, application/json;q=0.1": true, "application/json;q=0": false, "application/*": false, "application/xml": false,
	} {
		require.Equal(t, want, acceptsJSON([]string{accept}), accept)
	}
}
