// Package script fetches script objects: the scripts that are too long to travel in every command. It reads the object's
// chunks by direct gets, because the client's own way makes a consumer for each object, and an endpoint makes none.
package script

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/synadia-io/orbit.go/jetstreamext"

	"kanade/libs/bus"
	"kanade/libs/events"
	"kanade/libs/events/wire"
)

// MaxBytes is the largest script object.
const MaxBytes = 4 << 20

const (
	timeout    = time.Minute
	chunkBatch = 1024
	stream     = "OBJ_" + events.StoreScripts
)

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
	subject := "$O." + events.StoreScripts + ".M." + base64.URLEncoding.EncodeToString([]byte(name))
	m, ok, err := b.LastRaw(ctx, stream, subject)
	if err != nil {
		return "", fmt.Errorf("fetch script object %s: %w", name, err)
	}
	var info struct {
		NUID    string `json:"nuid"`
		Size    uint64 `json:"size"`
		Deleted bool   `json:"deleted"`
	}
	if !ok || json.Unmarshal(m.Data, &info) != nil || info.Deleted || info.NUID == "" {
		return "", fmt.Errorf("%w: %s is not there", ErrUnusable, name)
	}
	if info.Size > MaxBytes {
		return "", fmt.Errorf("%w: %s has %d bytes, the limit is %d", ErrUnusable, name, info.Size, MaxBytes)
	}
	body, err := chunks(ctx, b, "$O."+events.StoreScripts+".C."+info.NUID, int(info.Size))
	if err != nil {
		return "", fmt.Errorf("fetch script object %s: %w", name, err)
	}
	if sha256.Sum256(body) != want {
		return "", fmt.Errorf("%w: %s has changed since the command was made", ErrUnusable, name)
	}
	if !utf8.Valid(body) {
		return "", fmt.Errorf("%w: %s is not UTF-8", ErrUnusable, name)
	}
	return string(body), nil
}

func chunks(ctx context.Context, b *bus.Bus, subject string, size int) ([]byte, error) {
	body := make([]byte, 0, size)
	for next := uint64(1); len(body) < size; {
		before := next
		for m, err := range b.Batch(ctx, stream, chunkBatch, jetstreamext.GetBatchSubject(subject), jetstreamext.GetBatchSeq(next)) {
			if err != nil {
				return nil, err
			}
			if len(body)+len(m.Data) > size {
				return nil, fmt.Errorf("object is longer than it says")
			}
			body, next = append(body, m.Data...), m.Sequence+1
		}
		if next == before {
			return nil, errors.New("a part of the object is missing")
		}
	}
	return body, nil
}
