package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"kanade/cmd/kanade/internal/client"
)

// How often a watch asks the API: not more than once in askPause, and not more than a fifth of the time.
const askPause, askShare = 300 * time.Millisecond, 5

// recentExecs is how many execs of its job a watch looks through for its own.
const recentExecs = 20

// watcher shows one exec as it moves.
type watcher struct {
	api *client.Client
	id  string
	out io.Writer
	err io.Writer
	// size is the terminal's in cells; nil where out is none, which gets one line for every change instead.
	size func() (width, height int)
	json bool

	view  execView
	seen  picture
	note  string // what is wrong at the moment
	drawn int    // lines on the terminal
}

// watch shows an exec until it has ended or ctx has; both are no error.
func (a *app) watch(ctx context.Context, api *client.Client, id string) error {
	w := &watcher{api: api, id: id, out: a.out, err: a.err, json: a.json}
	if !a.json {
		w.size = terminalSize(a.out)
	}
	return w.run(ctx)
}

func (w *watcher) run(ctx context.Context) error {
	applied, err := w.read(ctx, 0)
	if err != nil {
		return withHint(err, knownExecs)
	}
	if w.size != nil {
		fmt.Fprint(w.out, hideCursor)
		defer fmt.Fprint(w.out, showCursor)
	}
	if w.seen.ended() {
		return w.draw(time.Now())
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	from := w.seen.exec.Sequence
	if applied > 0 {
		from = applied + 1
	}
	moved, ended := w.follow(ctx, from)
	err = w.loop(ctx, moved, ended)
	cancel()
	for range ended { // until it is closed
	}
	return err
}

// follow tells the sequence of the newest fact of the exec, and then how the stream ended.
func (w *watcher) follow(ctx context.Context, from uint64) (<-chan uint64, <-chan error) {
	moved, ended := make(chan uint64, 1), make(chan error, 1)
	go func() {
		defer close(ended)
		ended <- w.api.Follow(ctx, client.Filter{From: from, Exec: w.id}, nil, func(e client.Event, _ []byte) (bool, error) {
			select {
			case <-moved: // nobody has taken the one before
			default:
			}
			moved <- e.Sequence
			return true, nil
		})
	}()
	return moved, ended
}

func (w *watcher) loop(ctx context.Context, moved <-chan uint64, ended <-chan error) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var ask <-chan time.Time
	var want uint64
	pause := time.Duration(0)
	if err := w.draw(time.Now()); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-ended:
			if ctx.Err() != nil {
				return nil
			}
			return err
		case want = <-moved:
			if ask == nil {
				ask = time.After(pause)
			}
			continue
		case <-tick.C:
			if w.size == nil {
				continue
			}
		case <-ask:
			ask = nil
			began := time.Now()
			if err := w.again(ctx, want); err != nil {
				return err
			}
			pause = max(askPause, askShare*time.Since(began))
			if w.note != "" {
				ask = time.After(pause)
			}
		}
		if err := w.draw(time.Now()); err != nil || w.seen.ended() {
			return err
		}
	}
}

// again reads the exec as of at least a sequence. What passes is noted, and no error.
func (w *watcher) again(ctx context.Context, want uint64) error {
	_, err := w.read(ctx, want)
	var refused *client.Refused
	var unreachable *client.Unreachable
	switch {
	case err == nil:
		w.note = ""
		return nil
	case ctx.Err() != nil:
		return nil
	case errors.As(err, &unreachable), errors.As(err, &refused) && refused.Temporary():
		if w.size == nil && w.note == "" {
			fmt.Fprintf(w.err, "kanade: %v; trying again\n", err)
		}
		w.note = "as of a while ago: " + err.Error()
		return nil
	}
	return err
}

// read takes a new picture and returns the sequence that it has seen at least.
func (w *watcher) read(ctx context.Context, minSequence uint64) (applied uint64, err error) {
	var v execView
	if v.Execution, applied, err = w.readExecution(ctx, minSequence); err != nil {
		return 0, err
	}
	if v.Waves, v.Failures, err = readWaves(ctx, w.api, w.id, minSequence); err != nil {
		return 0, err
	}
	p, err := v.picture()
	if err != nil {
		return 0, err
	}
	if p.exec.Budget == nil { // a row of the list has none, and a plan's never changes
		p.exec.Budget = w.seen.exec.Budget
	}
	w.view = v
	if w.size != nil || w.json {
		w.seen = p
		return applied, nil
	}
	w.tell(p)
	return applied, nil
}

// readExecution looks for the exec among the recent ones of its job: the document of the exec itself lists a result for
// each endpoint, which a picture does not need; what it says of the plan is needed once.
func (w *watcher) readExecution(ctx context.Context, minSequence uint64) (json.RawMessage, uint64, error) {
	if w.seen.exec.JobID != "" && w.seen.exec.Waves > 0 {
		answer, err := w.api.Do(ctx, client.Request{
			Method: http.MethodGet, Path: "/api/executions", MinSequence: minSequence,
			Query: url.Values{"job_id": {w.seen.exec.JobID}, "limit": {strconv.Itoa(recentExecs)}},
		})
		if err != nil {
			return nil, 0, err
		}
		var rows []json.RawMessage
		if err := decode("execs", answer.Body, &rows); err != nil {
			return nil, 0, err
		}
		for _, row := range rows {
			var e client.Execution
			if err := decode("exec", row, &e); err != nil {
				return nil, 0, err
			}
			if e.ExecID == w.id {
				return row, answer.Sequence, nil
			}
		}
	}
	answer, err := w.api.Do(ctx, client.Request{Method: http.MethodGet, Path: client.Path("api", "executions", w.id), MinSequence: minSequence})
	if err != nil {
		return nil, 0, err
	}
	var v execView
	err = decode("exec "+w.id, answer.Body, &v)
	return v.Execution, answer.Sequence, err
}

// tell prints what is different, for who reads line by line.
func (w *watcher) tell(p picture) {
	for _, line := range changes(w.seen, p) {
		fmt.Fprintf(w.out, "%s  %s\n", time.Now().Format("15:04:05"), line)
	}
	w.seen = p
}

// draw puts the picture where the one before was, or with --json prints it as one line.
func (w *watcher) draw(now time.Time) error {
	if w.json {
		return w.drawJSON()
	}
	if w.size == nil {
		return nil
	}
	width, height := w.size()
	lines, err := w.seen.lines(now, width)
	if err != nil {
		return err
	}
	if w.note != "" {
		lines = append(lines, "", w.note)
	}
	var b bytes.Buffer
	w.drawn = redraw(&b, w.drawn, fit(lines, width, height))
	_, err = w.out.Write(b.Bytes())
	return err
}

func (w *watcher) drawJSON() error {
	if len(w.view.Execution) == 0 {
		return nil
	}
	doc, err := json.Marshal(map[string]json.RawMessage{
		"execution": w.view.Execution, "waves": w.view.Waves, "failures": w.view.Failures,
	})
	if err != nil {
		return err
	}
	w.view = execView{}
	_, err = w.out.Write(append(doc, '\n'))
	return err
}

// What commands a terminal: its cursor, whether it breaks long lines, and what is right of and below the cursor.
const (
	hideCursor = "\x1b[?25l\x1b[?7l"
	showCursor = "\x1b[?7h\x1b[?25h"
	clearRight = "\x1b[K"
	clearBelow = "\x1b[J"
)

// redraw writes lines over the drawn ones and returns how many there are.
func redraw(b *bytes.Buffer, drawn int, lines []string) int {
	if drawn > 0 {
		fmt.Fprintf(b, "\x1b[%dA\r", drawn)
	}
	for _, line := range lines {
		b.WriteString(line + clearRight + "\n")
	}
	b.WriteString(clearBelow)
	return len(lines)
}

// fit cuts lines to what a terminal shows, the line of the cursor apart.
func fit(lines []string, width, height int) []string {
	fitted := make([]string, 0, len(lines))
	room := max(height-1, 1)
	for i, line := range lines {
		if i == room-1 && len(lines) > room {
			line = fmt.Sprintf("… %s more", plural(len(lines)-i, "line"))
		}
		if i == room {
			break
		}
		if runes := []rune(line); len(runes) > width && width > 0 {
			line = string(runes[:width])
		}
		fitted = append(fitted, line)
	}
	return fitted
}

// knownExecs says where ids of execs come from.
const knownExecs = "`kanade exec list` shows which there are"

// withHint adds to a refusal for something that is not there where to find what is.
func withHint(err error, hint string) error {
	if refused, ok := errors.AsType[*client.Refused](err); ok && refused.Status == http.StatusNotFound {
		refused.Hint = cmp.Or(refused.Hint, hint)
	}
	return err
}
