package backup

import (
	"context"
	"strings"

	"kanade/libs/bus"
	"kanade/libs/events"
)

// forgetUnknown deletes the commands after a sequence of EXEC whose exec has no wave released in the log: EXEC is taken
// after the log, and nothing may run of which the log knows nothing. What others have sent, without a message id of ours,
// stays.
func forgetUnknown(ctx context.Context, b *bus.Bus, after uint64) (deleted int, err error) {
	last, err := b.LastSeq(ctx, events.StreamExec)
	if err != nil {
		return 0, err
	}
	known := map[string]bool{}
	for seq := after + 1; seq <= last; seq++ {
		m, found, err := b.Get(ctx, events.StreamExec, seq)
		if err != nil {
			return deleted, err
		}
		exec, ours := execOf(m)
		if !found || !ours {
			continue
		}
		if _, asked := known[exec]; !asked {
			if _, known[exec], err = b.LastRaw(ctx, events.StreamLog, events.FactSubject(events.AggregateExec, exec, "wave-released")); err != nil {
				return deleted, err
			}
		}
		if known[exec] {
			continue
		}
		if err := b.DeleteMessage(ctx, events.StreamExec, seq); err != nil {
			return deleted, err
		}
		deleted++
	}
	return deleted, nil
}

// execOf is the exec of a command of the dispatcher's, whose message id is <exec>/<wave>/<subject>.
func execOf(m bus.RawMsg) (string, bool) {
	id := m.Header[events.HeaderMsgID]
	if len(id) == 0 {
		return "", false
	}
	exec, _, ours := strings.Cut(id[0], "/")
	return exec, ours
}
