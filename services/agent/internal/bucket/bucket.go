// Package bucket reads the buckets that are made for agents. It asks for single keys and makes no consumer: an endpoint
// may not cost the broker one.
package bucket

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"kanade/libs/bus"
)

// Timeout bounds one lookup. A broker that does not answer must not hold a run for long: its gate passes.
const Timeout = 3 * time.Second

// ErrUnavailable says that the broker is not connected.
var ErrUnavailable = errors.New("broker is not connected")

// Reader reads buckets. It is safe for concurrent use.
type Reader struct{ Bus *bus.Bus }

// Value is what a key holds.
type Value struct {
	Data []byte
	// At is when the broker stored it.
	At time.Time
}

// Get reads a key by direct get: any replica answers, which may lag. ok is false for a key that is not there or was
// deleted.
func (r Reader) Get(ctx context.Context, name, key string) (v Value, ok bool, err error) {
	if !r.Bus.Connected() {
		return Value{}, false, ErrUnavailable
	}
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	m, err := r.Bus.Conn().RequestWithContext(ctx, "$JS.API.DIRECT.GET.KV_"+name+"."+Subject(name, key), nil)
	if err != nil {
		return Value{}, false, fmt.Errorf("read %s of bucket %s: %w", key, name, err)
	}
	switch status := m.Header.Get("Status"); {
	case status == "404", deleted(m.Header):
		return Value{}, false, nil
	case status != "":
		return Value{}, false, fmt.Errorf("read %s of bucket %s: broker answers %s %s", key, name, status, m.Header.Get("Description"))
	}
	at, err := time.Parse(time.RFC3339Nano, m.Header.Get("Nats-Time-Stamp"))
	if err != nil {
		return Value{}, false, fmt.Errorf("read %s of bucket %s: time: %w", key, name, err)
	}
	return Value{m.Data, at}, true, nil
}

// Subject is where a bucket's key is published.
func Subject(name, key string) string { return "$KV." + name + "." + key }

func deleted(h nats.Header) bool {
	return h.Get("KV-Operation") != "" || h.Get("Nats-Marker-Reason") != ""
}
