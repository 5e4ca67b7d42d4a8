package readmodel

import (
	"cmp"
	"context"
	"math"
	"regexp"
	"regexp/syntax"
	"slices"
	"time"
)

// ResultFilter narrows a list of results; empty fields match all.
type ResultFilter struct {
	// Status is one of the Result… words.
	Status ResultStatus
	// Since is the earliest StartedAt.
	Since time.Time
	// Regular expressions that find something anywhere in the field; nil: all. One that is anchored at both ends and has no
	// choice in between is looked up.
	PCID, JobID, ExecID, Stdout, Stderr *regexp.Regexp
	// Words searches the outputs; see ParseWords. The list is then of ended runs in the order of their ends in the log,
	// the last first, as far as Searched says.
	Words Words
	Page
}

// ResultStatus is what GET /api/results filters by.
type ResultStatus string

// The words. A skip is neither success nor failure.
const (
	ResultSuccess ResultStatus = "success"
	ResultFailure ResultStatus = "failure"
	ResultRunning ResultStatus = "running"
)

// where is the condition of a status; empty for all.
func (s ResultStatus) where() string {
	switch s {
	case ResultSuccess:
		return " AND results.state = 'succeeded'"
	case ResultFailure:
		return " AND results." + resultFailed
	case ResultRunning:
		return " AND results." + resultRunning
	default:
		return ""
	}
}

// Bounds of one page of results. Whichever is reached first ends it; its cursor continues behind the last row looked at,
// so a page may be short, or empty, and still not be the last.
const (
	// resultStep bounds how long one query holds the write-ahead log, in rows.
	resultStep = 500
	// maxLooked rows are looked at to find what filters ask for: about a second.
	maxLooked = 100_000
	// maxSpans of the log, wordSpan sequences each, are gone through to find words.
	maxSpans = 4
	// maxSearched bytes of outputs are read to look for an expression in them.
	maxSearched = 32 << 20
	// maxGiven bytes of outputs are in a page.
	maxGiven = 16 << 20
)

const (
	resultsStarted order = "results"
	resultsFound   order = "results-found"
)

// Results lists runs with their output, the last started first, and gives the cursor of the next page; ErrCursor. All runs
// are searched, however old, page by page.
func (r *Reader) Results(ctx context.Context, f ResultFilter) (page []Result, next string, err error) {
	w := newResultWalk(f)
	if err := w.start(); err != nil {
		return nil, "", err
	}
	page = []Result{}
	for given := 0; f.Limit != 0; {
		found, last, err := w.step(ctx, r, f.Limit-len(page))
		if err != nil {
			return nil, "", err
		}
		taken := 0
		for ; taken < len(found) && (f.Limit < 0 || len(page)+taken < f.Limit && given <= maxGiven); taken++ {
			given += len(found[taken].Stdout.Text) + len(found[taken].Stderr.Text)
		}
		page = append(page, found[:taken]...)
		if taken < len(found) {
			return page, w.cursor(&page[len(page)-1]), nil
		}
		if last {
			break
		}
		if f.Limit > 0 && (w.looked >= maxLooked || w.searched >= maxSearched || w.spans >= maxSpans) {
			return page, w.here(), nil
		}
	}
	return page, "", nil
}

// CountResults counts the runs of a status and, unless it is empty, of a job, without looking at any.
func (r *Reader) CountResults(ctx context.Context, s ResultStatus, jobID string) (int, error) {
	query, args := "SELECT COALESCE(SUM(count), 0) FROM result_counts results WHERE 1"+s.where(), []any{}
	if jobID != "" {
		query, args = query+" AND job_id = ?", append(args, jobID)
	}
	return one(ctx, r, scanCount, query, args...)
}

// Countable tells whether CountResults counts what the filter lists, and of which job.
func (f *ResultFilter) Countable() (jobID string, ok bool) {
	if f.JobID != nil {
		if jobID, ok = exact(f.JobID); !ok || jobID == "" {
			return "", false
		}
	}
	return jobID, f.Since.IsZero() && f.PCID == nil && f.ExecID == nil && f.Stdout == nil && f.Stderr == nil && f.Words == ""
}

// resultWalk goes through candidates in the order of a list.
type resultWalk struct {
	f ResultFilter
	// index leads in order through fewer results than another one would; where and args are what else the database decides.
	index, where string
	args         []any
	// patterns are decided here.
	patterns []pattern
	// place is that of the last candidate.
	place
	// span is where the span of the log begins that words are looked for in, and spans counts those that were gone through.
	span int64
	// looked counts rows, searched bytes of outputs that expressions were matched against.
	spans, looked, searched int
}

// place is where a result stands in the lists: by its start, or by its sequence where words are searched.
type place struct {
	started  int64
	id       string
	sequence int64
}

// pattern is an expression that is matched row by row.
type pattern struct {
	column string
	re     *regexp.Regexp
}

func newResultWalk(f ResultFilter) *resultWalk {
	w := &resultWalk{f: f, index: "results_started", where: f.Status.where(), place: place{started: maxNanos, sequence: math.MaxInt64}, span: math.MaxInt64}
	switch f.Status {
	case ResultRunning:
		w.index = "results_running"
	case ResultFailure:
		w.index = "results_failed"
	}
	for _, x := range []struct {
		column, index string
		re            *regexp.Regexp
	}{
		{"job_id", "results_job", f.JobID}, {"pc_id", "results_pc", f.PCID}, {"exec_id", "results_exec", f.ExecID},
		{"stdout", "", f.Stdout}, {"stderr", "", f.Stderr},
	} {
		text, ok := exact(x.re)
		switch {
		case x.re == nil:
		case !ok || x.index == "":
			w.patterns = append(w.patterns, pattern{x.column, x.re})
		default:
			w.where, w.args = w.where+" AND results."+x.column+" = ?", append(w.args, text)
			// Of a job there are more runs than runs that fail or go on, of an endpoint and an exec fewer.
			if x.column != "job_id" || w.index == "results_started" {
				w.index = x.index
			}
		}
	}
	if !f.Since.IsZero() {
		w.where, w.args = w.where+" AND results.started_at >= ?", append(w.args, toNanos(f.Since))
	}
	return w
}

func (w *resultWalk) start() error {
	if w.f.Words != "" {
		return w.f.begin(resultsFound, &w.sequence)
	}
	return w.f.begin(resultsStarted, &w.started, &w.id)
}

func (w *resultWalk) cursor(x *Result) string {
	if w.f.Words != "" {
		return resultsFound.cursor(x.Sequence)
	}
	return resultsStarted.cursor(toNanos(x.StartedAt), x.ResultID)
}

// here is the cursor behind the last candidate.
func (w *resultWalk) here() string {
	if w.f.Words != "" {
		return resultsFound.cursor(w.sequence)
	}
	return resultsStarted.cursor(w.started, w.id)
}

// step looks at the next candidates and gives those that match; last when no more follow. wanted is how many the page
// still takes (All: no limit); one more is looked for, to know whether there is any.
func (w *resultWalk) step(ctx context.Context, r *Reader, wanted int) (found []Result, last bool, err error) {
	size := resultStep
	if wanted >= 0 {
		size = min(size, wanted+1)
	}
	if w.f.Words != "" {
		if more, err := w.enter(ctx, r); err != nil || !more {
			return nil, true, err
		}
	}
	if len(w.patterns) > 0 || w.f.Words != "" && w.where != "" {
		matching, last, err := w.match(ctx, r, min(resultStep, max(size, 2*w.looked)))
		if len(matching) > size { // the page ends among them
			matching, last = matching[:size], false
			w.place = matching[size-1]
		}
		if err != nil || len(matching) == 0 {
			return nil, last, err
		}
		found, err := w.load(ctx, r, matching)
		return found, last, err
	}
	query, args := w.candidates(results.list("results"), size)
	found, err = list(ctx, r, scanResult, query, args...)
	if n := len(found); n > 0 {
		x := &found[n-1]
		w.place = place{toNanos(x.StartedAt), x.ResultID, int64(x.Sequence)}
		w.looked += n
	}
	return found, len(found) < size && w.passed(), err
}

// candidates is a query for the next of them.
func (w *resultWalk) candidates(columns string, size int) (query string, args []any) {
	if w.f.Words != "" && w.where == "" && len(w.patterns) == 0 {
		return "SELECT " + columns + " FROM result_words w CROSS JOIN results INDEXED BY results_ended ON results.sequence = w.rowid AND results." + resultEnded +
				" WHERE result_words MATCH ? AND w.rowid < ? AND w.rowid >= ? ORDER BY w.rowid DESC LIMIT ?",
			[]any{string(w.f.Words) + " AND " + spanWord(w.span), w.sequence, w.span, size}
	}
	if w.f.Words != "" {
		// What came later than its words were written, or was replaced since, has no row here.
		return "SELECT " + columns + " FROM (" + selectWords + ") w LEFT JOIN results INDEXED BY results_ended" +
				" ON results.sequence = w.rowid AND results." + resultEnded + w.where + " ORDER BY w.rowid DESC",
			append([]any{string(w.f.Words) + " AND " + spanWord(w.span), w.sequence, w.span, size}, w.args...)
	}
	return "SELECT " + columns + " FROM results INDEXED BY " + w.index + " WHERE (results.started_at, results.result_id) < (?, ?)" + w.where +
		" ORDER BY results.started_at DESC, results.result_id DESC LIMIT ?", append(append([]any{w.started, w.id}, w.args...), size)
}

// match gives the places of those that match of the next candidates. It reads their places, and of the fields those that
// an expression is for.
func (w *resultWalk) match(ctx context.Context, r *Reader, size int) (matching []place, last bool, err error) {
	columns := "results.sequence"
	if w.f.Words != "" {
		columns = "w.rowid"
	}
	columns += ", COALESCE(results.started_at, 0), COALESCE(results.result_id, '')"
	var at place
	texts, into := make([]string, len(w.patterns)), []any{&at.sequence, &at.started, &at.id}
	for i, p := range w.patterns {
		columns += ", COALESCE(results." + p.column + ", '')"
		into = append(into, &texts[i])
	}
	query, args := w.candidates(columns, size)
	looked, err := list(ctx, r, func(scan func(...any) error) (candidate, error) {
		err := scan(into...)
		return candidate{at, err == nil && at.id != "" && w.matches(texts)}, err
	}, query, args...)
	if n := len(looked); n > 0 {
		w.place, w.looked = looked[n-1].place, w.looked+n
	}
	for _, c := range looked {
		if c.matches {
			matching = append(matching, c.place)
		}
	}
	return matching, len(looked) < size && w.passed(), err
}

// passed is told that no more follow, and reports whether that was all: of a search only a span is gone through.
func (w *resultWalk) passed() bool {
	if w.f.Words == "" {
		return true
	}
	w.sequence, w.spans = w.span, w.spans+1
	return false
}

// enter goes on to the next span in which anything has words, once the one before is gone through; false: there is none.
func (w *resultWalk) enter(ctx context.Context, r *Reader) (bool, error) {
	if w.sequence > w.span {
		return true, nil
	}
	next, err := list(ctx, r, func(scan func(...any) error) (n int64, err error) { return n, scan(&n) }, selectNextWords, w.sequence)
	if err != nil || len(next) == 0 {
		return false, err
	}
	w.span = next[0] - next[0]%wordSpan
	return true, nil
}

type candidate struct {
	place
	matches bool
}

func (w *resultWalk) matches(texts []string) bool {
	for i, p := range w.patterns {
		if p.column == "stdout" || p.column == "stderr" {
			w.searched += len(texts[i])
		}
		if !p.re.MatchString(texts[i]) {
			return false
		}
	}
	return true
}

// load reads runs in the order of their places, those whose status is still what was asked for.
func (w *resultWalk) load(ctx context.Context, r *Reader, places []place) ([]Result, error) {
	ids, order := make([]string, len(places)), make(map[string]int, len(places))
	for i, p := range places {
		ids[i], order[p.id] = p.id, i
	}
	found, err := list(ctx, r, scanResult, results.all()+" WHERE result_id IN (SELECT value FROM json_each(?))"+w.f.Status.where(), textList(ids))
	if err != nil {
		return nil, err
	}
	slices.SortFunc(found, func(a, b Result) int { return cmp.Compare(order[a.ResultID], order[b.ResultID]) })
	return found, nil
}

// exact is the one text that an expression matches, when it is anchored at both ends and has no choice in between: what
// the database can look up instead of reading every row.
func exact(re *regexp.Regexp) (string, bool) {
	if re == nil {
		return "", false
	}
	s, err := syntax.Parse(re.String(), syntax.Perl)
	if err != nil || s.Op != syntax.OpConcat || len(s.Sub) != 3 {
		return "", false
	}
	begin, text, end := s.Sub[0], s.Sub[1], s.Sub[2]
	// Without the flag (?m) and before the end of the text, not of a line.
	if begin.Op != syntax.OpBeginText || end.Op != syntax.OpEndText || text.Op != syntax.OpLiteral || text.Flags&syntax.FoldCase != 0 {
		return "", false
	}
	return string(text.Rune), true
}
