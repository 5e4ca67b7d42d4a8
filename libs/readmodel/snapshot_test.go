package readmodel

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/events"
)

// A snapshot that is taken while the file is written to is the file as it was at the position that it names; and nothing
// but what LOG determines is in it.
func TestSnapshotWhileWriting(t *testing.T) {
	j := &journal{t: t}
	for i := range 400 {
		exec := events.DeriveID("exec", string(rune(i)))
		j.append(requested(exec, "hello"), "user:op")
		j.append(finished(run(exec, i%7), events.StateSucceeded), "agent:pc")
	}
	ctx := context.Background()
	w, err := OpenWriter(ctx, t.TempDir())
	require.NoError(t, err)
	beat := Message{
		Stream: events.StreamPresence, Subject: "heartbeat.pc-01", Seq: 1, Time: begin, Data: []byte(`{"pc_id":"pc-01","at":"2026-11-23T17:40:52Z","agent_version":"1"}`),
	}
	_, err = w.Apply(ctx, events.StreamPresence, []Message{beat})
	require.NoError(t, err)
	_, err = w.Apply(ctx, events.StreamLog, j.messages[:1])
	require.NoError(t, err)

	var writing sync.WaitGroup
	writing.Go(func() {
		for at := 1; at < len(j.messages); at++ {
			if _, err := w.Apply(ctx, events.StreamLog, j.messages[at:at+1]); err != nil {
				t.Error(err)
				return
			}
		}
	})
	dir, taken := t.TempDir(), map[uint64]string{}
	for n := 0; n < 5 || len(taken) < 3; n++ {
		file := filepath.Join(dir, "snapshot-"+string(rune('a'+n)))
		at, err := Snapshot(ctx, w.Path(), file)
		require.NoError(t, err)
		taken[at.Sequence] = file
		if at.Sequence == uint64(len(j.messages)) {
			break
		}
	}
	writing.Wait()
	require.NoError(t, w.Close())
	require.Greater(t, len(taken), 1)

	clean, err := OpenWriter(ctx, t.TempDir())
	require.NoError(t, err)
	defer clean.Close()
	for i, m := range j.messages {
		_, err := clean.Apply(ctx, events.StreamLog, j.messages[i:i+1])
		require.NoError(t, err)
		file, ok := taken[m.Seq]
		if !ok {
			continue
		}
		at, err := CheckSnapshot(ctx, file)
		require.NoError(t, err)
		require.Equal(t, m.Seq, at.Sequence)
		require.True(t, m.Time.Equal(at.At))
		want, err := clean.Digest(ctx)
		require.NoError(t, err)
		v, err := OpenView(ctx, file)
		require.NoError(t, err)
		have, err := v.Digest(ctx)
		require.NoError(t, err)
		require.Equal(t, want, have)
		var others int
		require.NoError(t, v.tx.QueryRow("SELECT (SELECT COUNT(*) FROM presence) + (SELECT COUNT(*) FROM checkpoints WHERE stream <> 'LOG')").Scan(&others))
		require.Zero(t, others)
		require.NoError(t, v.Close())
	}

	_, err = Snapshot(ctx, filepath.Join(dir, "none.db"), filepath.Join(dir, "x"))
	require.Error(t, err)
	_, err = os.Stat(filepath.Join(dir, "x"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

// A reader of the past looks at one file: no other one, and not at all at what is older than it may be.
func TestPastReader(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	j := &journal{t: t}
	for i := range 6 {
		j.append(events.JobSaved{ID: string(rune('a' + i)), Version: "1"}, "user:op")
	}
	live, err := OpenWriter(ctx, dir)
	require.NoError(t, err)
	defer live.Close()
	_, err = live.Apply(ctx, events.StreamLog, j.messages)
	require.NoError(t, err)
	r, err := OpenReader(dir)
	require.NoError(t, err)
	defer r.Close()
	_, err = r.Past(ctx, 3, time.Time{})
	require.ErrorIs(t, err, ErrNotFound)

	past, err := ClaimPast(ctx, dir, events.Retain{})
	require.NoError(t, err)
	waiting, cancel := context.WithTimeout(ctx, 3*claimEvery)
	_, err = ClaimPast(waiting, dir, events.Retain{})
	cancel()
	require.ErrorIs(t, err, context.DeadlineExceeded, "one builds at a time")
	w, err := past.Build(ctx, past.Room())
	require.NoError(t, err)
	_, err = w.Apply(ctx, events.StreamLog, j.messages[:3])
	require.NoError(t, err)
	_, err = r.Past(ctx, 3, time.Time{})
	require.ErrorIs(t, err, ErrNotFound, "it is not offered yet")
	require.NoError(t, past.Offer(ctx, w, 3, begin))
	broken, err := past.Build(ctx, past.Room())
	require.NoError(t, err)
	require.NoError(t, broken.Close())
	require.NoError(t, past.Close())
	past, err = ClaimPast(ctx, dir, events.Retain{})
	require.NoError(t, err)
	defer past.Close()
	left, err := filepath.Glob(filepath.Join(dir, "past", "*"))
	require.NoError(t, err)
	require.Len(t, left, 2, "the lock and the model")

	then, err := r.Past(ctx, 3, begin)
	require.NoError(t, err)
	defer then.Close()
	n, err := then.CountJobs(ctx)
	require.NoError(t, err)
	require.Equal(t, 3, n)
	n, err = r.CountJobs(ctx)
	require.NoError(t, err)
	require.Equal(t, 6, n)
	slots, err := r.Slots(ctx)
	require.NoError(t, err)
	require.Len(t, slots, 1, "it is no slot")
	_, err = r.Past(ctx, 3, begin.Add(time.Second))
	require.ErrorIs(t, err, ErrNotFound, "it is too old")
	require.NoError(t, past.Thin(begin, 1))
	require.NoError(t, past.Thin(begin.Add(time.Second), 1))
	_, err = r.Past(ctx, 3, begin)
	require.ErrorIs(t, err, ErrNotFound)
	n, err = then.CountJobs(ctx)
	require.NoError(t, err)
	require.Equal(t, 3, n, "who has it open goes on")
}
