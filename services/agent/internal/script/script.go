// Package script fetches script objects: the scripts that are too long to travel in every command.
package script

import (
	"context"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"kanade/libs/bus"
	"kanade/libs/events"
	"kanade/libs/events/wire"
)

// MaxBytes is the largest script object.
const MaxBytes = 4 << 20

const timeout = time.Minute

// ErrUnusable says that asking again is in vain: the object is not there, or is not what the command was made for.
var ErrUnusable = errors.New("script object is unusable")

// Fetch reads a script object and checks its digest, lower-case hex. Errors: ErrUnusable; others may pass.
func Fetch(ctx context.Context, b *bus.Bus, name, digest string) (string, error) {
	want, err := wire.ParseHexDigest(digest)
	if err != nil {
		return "", fmt.Errorf("%w: %s: %w", ErrUnusable, name, err)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	object, err := b.GetObject(ctx, events.StoreScripts, name, MaxBytes)
	switch {
	case errors.Is(err, bus.ErrNotFound) || errors.Is(err, bus.ErrTooLarge):
		return "", fmt.Errorf("%w: %w", ErrUnusable, err)
	case err != nil:
		return "", err
	case object.Digest != want:
		return "", fmt.Errorf("%w: %s has changed since the command was made", ErrUnusable, name)
	case !utf8.Valid(object.Data):
		return "", fmt.Errorf("%w: %s is not UTF-8", ErrUnusable, name)
	}
	return string(object.Data), nil
}
