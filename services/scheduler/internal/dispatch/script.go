package dispatch

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"

	"kanade/libs/bus"
	"kanade/libs/events"
	"kanade/libs/events/wire"
)

// A script of at least so many bytes that goes out in at least so many commands travels as an object of its own: EXEC
// would hold it once for every endpoint.
const (
	longScript   = 32 << 10
	manyCommands = 32
)

// carried is the request whose script is carried by commands: the exec's own, or one that names an object, which is
// stored when it is not there yet.
func (d *Dispatcher) carried(ctx context.Context, x *exec, commands int) (events.ExecRequested, error) {
	r := *x.requested
	if len(r.Script.Body) < longScript || commands < manyCommands {
		return r, nil
	}
	name, body := events.ExecScript(x.id), r.Script.Body
	digest := sha256.Sum256([]byte(body))
	stored, err := d.bus.StatObject(ctx, events.StoreScripts, name)
	if err == nil && (stored.Digest == nil || *stored.Digest != digest) || errors.Is(err, bus.ErrNotFound) || errors.Is(err, bus.ErrDeleted) {
		err = d.bus.PutObject(ctx, events.StoreScripts, name, strings.NewReader(body))
	}
	if err != nil {
		return r, fmt.Errorf("store script of exec %s: %w", x.id, err)
	}
	r.Script.Body, r.Script.Object, r.Script.ObjectSHA256 = "", name, wire.HexDigest(digest)
	return r, nil
}

// forget deletes the exec's own object, when its time is up.
func (d *Dispatcher) forget(ctx context.Context, x *exec) error {
	if len(x.requested.Script.Body) < longScript {
		return nil
	}
	if err := d.bus.DeleteObject(ctx, events.StoreScripts, events.ExecScript(x.id)); err != nil {
		return fmt.Errorf("delete script of exec %s: %w", x.id, err)
	}
	return nil
}
