package journal

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"kanade/libs/bus"
	"kanade/libs/events"
	"kanade/libs/events/wire"
	"kanade/services/api/internal/domain"
)

// objectTimeout bounds the writing of a script object.
const objectTimeout = 30 * time.Second

// InUse refuses while a script object is in use, as of at least a sequence of the log.
type InUse func(ctx context.Context, sequence uint64) error

// PutObject stores a script object and describes it. One that is there already, byte for byte, is not written again. Over
// other bytes of that key it is written when nobody uses them: inUse is asked before, as DeleteObject does.
func (j *Journal) PutObject(ctx context.Context, c Caller, key string, content []byte, inUse InUse) (bus.ObjectInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, objectTimeout)
	defer cancel()
	cur, err := j.object(ctx, c, key)
	if err != nil && !errors.Is(err, bus.ErrNotFound) {
		return cur, err
	}
	if err == nil && cur.Digest != nil && *cur.Digest == sha256.Sum256(content) {
		return cur, nil
	}
	if err == nil {
		if err := j.unused(ctx, inUse); err != nil {
			return cur, err
		}
	}
	if err := j.bus.PutObject(ctx, events.StoreScripts, key, bytes.NewReader(content)); err != nil {
		return cur, objectError(key, err)
	}
	return j.bus.StatObject(ctx, events.StoreScripts, key)
}

// DeleteObject deletes a script object; one that was deleted before stays so, one that never was is not found. inUse is
// asked before: an exec that is requested in the same moment may pin what is gone afterwards, and its endpoints say so.
func (j *Journal) DeleteObject(ctx context.Context, c Caller, key string, inUse InUse) error {
	ctx, cancel := context.WithTimeout(ctx, objectTimeout)
	defer cancel()
	_, err := j.object(ctx, c, key)
	switch {
	case errors.Is(err, bus.ErrDeleted):
		return nil
	case errors.Is(err, bus.ErrNotFound):
		return domain.Refuse(domain.NotFound, "script object '%s' not found", key)
	case err != nil:
		return err
	}
	if err := j.unused(ctx, inUse); err != nil {
		return err
	}
	return objectError(key, j.bus.DeleteObject(ctx, events.StoreScripts, key))
}

// unused asks as of what the log has now.
func (j *Journal) unused(ctx context.Context, inUse InUse) error {
	last, err := j.bus.LastSeq(ctx, events.StreamLog)
	if err != nil {
		return err
	}
	return inUse(ctx, last)
}

// object describes a script object and checks the caller's condition. The error of bus.StatObject comes along.
func (j *Journal) object(ctx context.Context, c Caller, key string) (bus.ObjectInfo, error) {
	if !j.bus.Connected() {
		return bus.ObjectInfo{}, fmt.Errorf("write script object %s: %w", key, bus.ErrUnavailable)
	}
	cur, err := j.bus.StatObject(ctx, events.StoreScripts, key)
	if err != nil && !errors.Is(err, bus.ErrNotFound) {
		return cur, err
	}
	tag := ""
	if cur.Digest != nil {
		tag = wire.FormatDigest(*cur.Digest)
	}
	if refused := c.Match.Check("script object", key, tag); refused != nil {
		return cur, refused
	}
	return cur, err
}

func objectError(key string, err error) error {
	if errors.Is(err, bus.ErrConflict) {
		return domain.Refuse(domain.Conflict, "script object '%s' was written by somebody else meanwhile", key)
	}
	return err
}

// pin gives a script's object the digest that it has now.
func (j *Journal) pin(ctx context.Context, s *events.Script) error {
	if s.Object == "" {
		return nil
	}
	o, err := j.bus.StatObject(ctx, events.StoreScripts, s.Object)
	switch {
	case errors.Is(err, bus.ErrNotFound):
		return domain.NoObject(s.Object)
	case err != nil:
		return err
	case o.Digest == nil:
		return domain.Refuse(domain.Conflict, "script object '%s' has no digest that can be read: upload it again", s.Object)
	case o.Size > domain.MaxObject:
		return domain.Refuse(domain.Conflict, "script object '%s' has %d bytes, more than the limit of %d that agents take", s.Object, o.Size, domain.MaxObject)
	}
	s.ObjectSHA256 = wire.HexDigest(*o.Digest)
	return nil
}

// pinned checks that a script's object has the bytes that were pinned once.
func (j *Journal) pinned(ctx context.Context, s events.Script) error {
	now := s
	if err := j.pin(ctx, &now); err != nil {
		return err
	}
	if now.ObjectSHA256 != s.ObjectSHA256 {
		return domain.Refuse(domain.Conflict, "script object '%s' has other bytes now than the execution pinned", s.Object)
	}
	return nil
}
