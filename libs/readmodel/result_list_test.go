package readmodel

import (
	"context"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"kanade/libs/events"
)

func writeWords(t require.TestingT, w *Writer) {
	for more := true; more; {
		var err error
		more, err = w.WriteWords(context.Background())
		require.NoError(t, err)
	}
}

// searchable is a log of some runs in all states, with outputs of a few words.
func searchable(t require.TestingT, n int) []Message {
	random := rand.New(rand.NewPCG(1, 2))
	words := []string{"disk", "full", "Access", "denied", "naïve", "0x80070005", "日本"}
	j := &journal{t: t}
	for i := range n {
		r := run(fmt.Sprintf("exec-%d", random.IntN(4)), i)
		r.JobID = []string{"hello", "update"}[random.IntN(2)]
		started := begin.Add(time.Duration(random.IntN(n/2)) * time.Second)
		j.append(events.RunStarted{Run: r, StartedAt: started}, "agent:pc")
		state := []events.TargetState{
			events.StateRunning, events.StateSucceeded, events.StateSucceeded, events.StateFailed, events.StateTimedOut, events.StateSkipped,
		}[random.IntN(6)]
		switch state {
		case events.StateRunning:
			continue
		case events.StateSkipped:
			j.append(events.RunSkipped{Run: r, SkippedAt: started, Code: 126, Reason: events.SkipReasonRevoked}, "agent:pc")
			continue
		}
		f := finished(r, state)
		f.StartedAt = started
		text := func() string {
			var out []string
			for range random.IntN(4) {
				out = append(out, words[random.IntN(len(words))])
			}
			return strings.Join(out, ", ")
		}
		f.Stdout, f.Stderr = events.Output{Text: text()}, events.Output{Text: text()}
		j.append(f, "agent:pc")
	}
	return j.messages
}

// Every filter gives what a look at each result gives, in any pages: also where much lies between them in the log.
func TestResultFilters(t *testing.T) {
	for _, apart := range []uint64{1, 1000, wordSpan/2 + 1, 3 * wordSpan} {
		t.Run(strconv.FormatUint(apart, 10), func(t *testing.T) {
			log := searchable(t, 400)
			for i := range log {
				log[i].Seq *= apart
			}
			testResultFilters(t, log)
		})
	}
}

func testResultFilters(t *testing.T, log []Message) {
	dir := t.TempDir()
	w, r := open(t, dir), read(t, dir)
	apply(t, w, log)
	writeWords(t, w)
	all, _, err := r.Results(t.Context(), ResultFilter{Page: everything})
	require.NoError(t, err)
	require.Len(t, all, 400)
	expression := func(t *rapid.T, name string, of ...string) *regexp.Regexp {
		if re := rapid.SampledFrom(append(of, "", "", "")).Draw(t, name); re != "" {
			return regexp.MustCompile(re)
		}
		return nil
	}
	rapid.Check(t, func(t *rapid.T) {
		f := ResultFilter{
			Status: rapid.SampledFrom([]ResultStatus{"", ResultSuccess, ResultFailure, ResultRunning}).Draw(t, "status"),
			PCID:   expression(t, "pc", "^pc-07$", "pc-.1", "^nobody$"), JobID: expression(t, "job", "^hello$", "h.llo|x", "(?m)^update$"),
			ExecID: expression(t, "exec", "^exec-1$", "-[12]"), Stdout: expression(t, "stdout", "disk", "^$"), Stderr: expression(t, "stderr", "(?i)ACCESS"),
		}
		if rapid.Bool().Draw(t, "since") {
			f.Since = begin.Add(100 * time.Second)
		}
		word := rapid.SampledFrom([]string{"", "", "disk", "disk FULL", "naive", `"access, denied"`, "0x8007*", "日本", "nothing"}).Draw(t, "words")
		f.Words, err = ParseWords(word)
		require.NoError(t, err)
		want := []Result{}
		for i := range all {
			if looksLike(&f, &all[i]) && (word == "" || all[i].State.Final() && says(&all[i], word)) {
				want = append(want, all[i])
			}
		}
		if word != "" {
			slices.SortFunc(want, func(a, b Result) int { return int(b.Sequence) - int(a.Sequence) })
		}
		got := []Result{}
		for f.Limit = rapid.SampledFrom([]int{1, 7, 600}).Draw(t, "limit"); ; {
			page, next, err := r.Results(context.Background(), f)
			require.NoError(t, err)
			got = append(got, page...)
			if f.After = next; next == "" {
				break
			}
		}
		require.Equal(t, want, got)
		if jobID, ok := f.Countable(); ok {
			n, err := r.CountResults(context.Background(), f.Status, jobID)
			require.NoError(t, err)
			require.Equal(t, len(want), n)
		}
	})
}

func looksLike(f *ResultFilter, r *Result) bool {
	match := func(re *regexp.Regexp, s string) bool { return re == nil || re.MatchString(s) }
	status := map[ResultStatus]bool{
		"": true, ResultRunning: r.State == events.StateRunning, ResultSuccess: r.State == events.StateSucceeded,
		ResultFailure: r.State.Final() && r.State != events.StateSucceeded && r.State != events.StateSkipped,
	}[f.Status]
	return status && !r.StartedAt.Before(f.Since) && match(f.PCID, r.PCID) && match(f.JobID, r.JobID) && match(f.ExecID, r.ExecID) &&
		match(f.Stdout, r.Stdout.Text) && match(f.Stderr, r.Stderr.Text)
}

// says is the search for those words that the test knows, without an index.
func says(r *Result, words string) bool {
	text := strings.ToLower(strings.ReplaceAll(r.Stdout.Text+" | "+r.Stderr.Text, "ï", "i"))
	for term := range strings.FieldsSeq(strings.ToLower(strings.NewReplacer(`"access, denied"`, "access,_denied", "*", "").Replace(words))) {
		if !strings.Contains(text, strings.ReplaceAll(term, "_", " ")) {
			return false
		}
	}
	return true
}

// A page ends where its bounds are, and the pages still are the whole list.
func TestResultPageEndsAtItsBounds(t *testing.T) {
	dir := t.TempDir()
	w, r := open(t, dir), read(t, dir)
	j := &journal{t: t}
	const runs, size = 40, 1 << 20
	for pc := range runs {
		f := finished(run("e1", pc), events.StateSucceeded)
		f.Stdout.Text = strings.Repeat("x", size)
		j.append(f, "agent:pc")
	}
	apply(t, w, j.messages)
	for name, f := range map[string]ResultFilter{
		"given": {}, "searched": {Stdout: regexp.MustCompile("^y")},
	} {
		f.Limit = 100
		page, next, err := r.Results(t.Context(), f)
		require.NoError(t, err)
		require.Less(t, len(page), maxGiven/size+2, name)
		n := len(page)
		for pages := 1; next != ""; pages++ {
			require.Less(t, pages, 10)
			f.After = next
			page, next, err = r.Results(t.Context(), f)
			require.NoError(t, err)
			n += len(page)
		}
		require.Equal(t, map[string]int{"given": runs, "searched": 0}[name], n)
	}
}
