package readmodel

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"kanade/libs/events"
)

func found(t require.TestingT, r *Reader, text string) (pcs []string) {
	words, err := ParseWords(text)
	require.NoError(t, err)
	rows, _, err := r.Results(context.Background(), ResultFilter{Words: words, Page: everything})
	require.NoError(t, err)
	for i := range rows {
		pcs = append(pcs, rows[i].PCID)
	}
	return pcs
}

// Words are written behind the log, continue after a restart, and are of what the row says in the end.
func TestWords(t *testing.T) {
	dir := t.TempDir()
	w, r := open(t, dir), read(t, dir)
	j := &journal{t: t}
	end := func(pc int, state events.TargetState, text string) {
		f := finished(run("e1", pc), state)
		f.Stdout, f.Stderr = events.Output{}, events.Output{Text: text}
		j.append(f, "agent:pc")
	}
	searched := func() uint64 {
		t.Helper()
		n, err := r.Searched(t.Context())
		require.NoError(t, err)
		return n
	}
	end(0, events.StateUnknown, "lost")
	end(1, events.StateFailed, "No space left on device")
	apply(t, w, j.messages)
	require.Zero(t, searched())
	require.Empty(t, found(t, r, "space"))
	before := digest(t, w)
	writeWords(t, w)
	require.EqualValues(t, 2, searched())
	require.Equal(t, []string{"pc-01"}, found(t, r, "SPACE left*"))
	require.Equal(t, []string{"pc-00"}, found(t, r, "lost"))
	require.Equal(t, before, digest(t, w), "words belong to no digest")

	require.NoError(t, w.Close())
	w = open(t, dir)
	end(0, events.StateSucceeded, "left alone")
	end(2, events.StateSucceeded, "")
	j.append(requested("e2", "hello"), "user:op")
	apply(t, w, j.messages)
	require.Empty(t, found(t, r, "lost"), "a truer end has come")
	writeWords(t, w)
	require.EqualValues(t, len(j.messages), searched())
	require.Equal(t, []string{"pc-00", "pc-01"}, found(t, r, "left"), "the last end first")
	require.Empty(t, found(t, r, "lost"))

	for range 450 {
		end(len(j.messages), events.StateSucceeded, "many words")
	}
	apply(t, w, j.messages)
	more, err := w.WriteWords(t.Context())
	require.NoError(t, err)
	require.True(t, more, "a step is bounded")
	require.Equal(t, j.messages[len(j.messages)-451+wordStep].Seq, searched())
	writeWords(t, w)
	require.Len(t, found(t, r, "many"), 450)
}

func TestParseWords(t *testing.T) {
	for text, want := range map[string]Words{
		"":                     "",
		"  ":                   "",
		"disk":                 `"disk"`,
		`disk "is full" now`:   `"disk" AND "is full" AND "now"`,
		`acc* OR NOT stdout:x`: `"acc"* AND "OR" AND "NOT" AND "stdout:x"`,
		`C:\Windows`:           `"C:\Windows"`,
	} {
		got, err := ParseWords(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
	for text, sentence := range map[string]string{
		`"open`: "quote", "**": "letter", "- -": "letter", strings.Repeat("a ", maxWords+1): "more than",
	} {
		_, err := ParseWords(text)
		require.ErrorContains(t, err, sentence, text)
	}
}

// Whatever is typed is refused here or understood by the database.
func FuzzWords(f *testing.F) {
	for _, seed := range []string{"disk full", `"a b" c*`, `a"b`, "é\x00x", "OR", "{}^:(1", "½", "日本*"} {
		f.Add(seed)
	}
	dir := f.TempDir()
	w, err := OpenWriter(context.Background(), dir)
	require.NoError(f, err)
	f.Cleanup(func() { require.NoError(f, w.Close()) })
	r, err := OpenReader(dir)
	require.NoError(f, err)
	f.Cleanup(func() { require.NoError(f, r.Close()) })
	f.Fuzz(func(t *testing.T, text string) {
		words, err := ParseWords(text)
		if err != nil || words == "" {
			return
		}
		_, _, err = r.Results(context.Background(), ResultFilter{Words: words, Page: everything})
		require.NoError(t, err)
	})
}
