package readmodel

import (
	"context"
	"slices"
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

// A page goes through so much of the log and no further, says where the next one begins, and none is passed over.
func TestWordsSpanBySpan(t *testing.T) {
	dir := t.TempDir()
	w, r := open(t, dir), read(t, dir)
	j := &journal{t: t}
	const spans = 3*maxSpans + 1
	for n := range 2 * spans {
		f := finished(run("e1", n), events.StateSucceeded)
		f.Stdout = events.Output{Text: "all \ue0003 well"} // who writes what the span of others is called finds nothing more
		if n == 1 {
			f.Stdout = events.Output{Text: "all is lost"}
		}
		j.append(f, "agent:pc")
	}
	for i := range j.messages { // two of each span, the first and the last sequence of it
		j.messages[i].Seq = uint64(i/2*wordSpan + i%2*(wordSpan-1))
	}
	j.messages[0].Seq = 1
	apply(t, w, j.messages)
	writeWords(t, w)
	pages := func(text string, limit int) (pages [][]string) {
		words, err := ParseWords(text)
		require.NoError(t, err)
		f := ResultFilter{Words: words, Page: Page{Limit: limit}}
		for {
			rows, next, err := r.Results(t.Context(), f)
			require.NoError(t, err)
			page := []string{}
			for i := range rows {
				page = append(page, rows[i].PCID)
			}
			if pages = append(pages, page); next == "" {
				return pages
			}
			f.After = next
		}
	}
	require.Equal(t, [][]string{{}, {}, {}, {"pc-01"}}, pages("lost all", 50))
	require.Equal(t, [][]string{{}, {}, {}, {}}, pages(`"well all"`, 50))
	whole := slices.Concat(pages("all", 1000)...)
	require.Len(t, whole, 2*spans)
	for limit := 1; limit < 9; limit++ {
		got := pages("all", limit)
		require.Equal(t, whole, slices.Concat(got...), limit)
		for _, page := range got {
			require.LessOrEqual(t, len(page), limit)
		}
	}
	require.Equal(t, append(whole[:2*spans-2:2*spans-2], "pc-00"), slices.Concat(pages("all well", 3)...))
	words, err := ParseWords("all")
	require.NoError(t, err)
	rows, next, err := r.Results(t.Context(), ResultFilter{Words: words, Page: everything})
	require.NoError(t, err)
	require.Empty(t, next)
	require.Len(t, rows, 2*spans)
}
