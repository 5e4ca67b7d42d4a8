package inbox

import (
	"context"
	"strings"
	"time"

	"kanade/libs/events"
	"kanade/libs/events/wire"
	"kanade/services/agent/internal/bucket"
	"kanade/services/agent/internal/ledger"
)

// readGroups makes the positions of groups equal to the membership, if that has not been looked up lately. While the
// bucket can't be read the endpoint stays in the groups it knew.
func (in *Inbox) readGroups(ctx context.Context) error {
	if time.Now().Before(in.groupsDue) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	groups, at, err := in.membership(ctx)
	if err != nil {
		return err
	}
	changes := map[string]*ledger.Position{}
	for subject := range in.positions {
		if strings.HasPrefix(subject, wire.SubjectCommandGroup("")) {
			changes[subject] = nil
		}
	}
	for _, g := range groups {
		subject := wire.SubjectCommandGroup(g)
		if _, known := in.positions[subject]; known {
			delete(changes, subject)
		} else {
			changes[subject] = &ledger.Position{Since: at}
		}
	}
	if err := in.move(changes); err != nil {
		return err
	}
	if in.groupsDue = time.Now().Add(groupsEvery); in.hinted {
		in.groupsDue, in.hinted = time.Time{}, false
	}
	return nil
}

// membership is the endpoint's groups and when they were stored. A value that can't be read means none, as on the wire.
func (in *Inbox) membership(ctx context.Context) (groups []string, at time.Time, err error) {
	v, ok, err := bucket.Reader{Bus: in.Bus}.Get(ctx, events.BucketAgentGroups, in.PCID)
	if err != nil || !ok {
		return nil, time.Time{}, err
	}
	g, err := wire.DecodeAgentGroups(v.Data)
	if err != nil {
		in.Logger.Warn("the groups of this endpoint can't be read; it has none", "error", err)
		return nil, v.At, nil
	}
	for _, name := range g.Groups {
		if err := events.ValidID(name); err != nil {
			in.Logger.Warn("a group of this endpoint is left out", "error", err)
			continue
		}
		groups = append(groups, name)
	}
	return groups, v.At, nil
}
