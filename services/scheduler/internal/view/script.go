package view

import (
	"fmt"

	"kanade/libs/events"
)

// The values of the bucket script_status.
const (
	statusActive  = "ACTIVE"
	statusRevoked = "REVOKED"
)

// scripts is the bucket script_status: whether commands of a job may start.
func scripts() bucket {
	return bucket{
		name: events.BucketScriptStatus, durable: "view-scripts", aggregate: events.AggregateScript, facts: []string{"revoked", "unrevoked"},
		value: func(p events.Payload) ([]byte, bool) {
			switch p.(type) {
			case events.ScriptRevoked:
				return []byte(statusRevoked), true
			case events.ScriptUnrevoked:
				return []byte(statusActive), true
			}
			return nil, false
		},
		act: func(job string, value []byte) (events.Payload, error) {
			switch {
			case string(value) == statusRevoked:
				return events.ScriptRevoked{JobID: job}, nil
			case value == nil || string(value) == statusActive:
				return events.ScriptUnrevoked{JobID: job}, nil
			}
			return nil, fmt.Errorf("expected %s or %s, got %.40q", statusActive, statusRevoked, value)
		},
		nothing: statusActive,
	}
}
