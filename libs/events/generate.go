package events

//go:generate sh -c "go run ./internal/docgen > ../../docs/events.md"
