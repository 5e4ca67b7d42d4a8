package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"kanade/cmd/kanade/internal/client"
)

type deadCmd struct {
	List  deadListCmd  `cmd:"" help:"List what lies in DEAD, newest first."`
	Show  deadShowCmd  `cmd:"" help:"Show a message in DEAD: where it came from, why it was given up, headers and body."`
	Retry deadRetryCmd `cmd:"" help:"Append messages in DEAD anew at the end of the log, each once."`
}

const knownDead = "`kanade dead list` shows what is there"

type deadListCmd struct {
	Handler string `help:"Only what this handler gave up."`
	Limit   int    `default:"20" help:"How many."`
}

func (c *deadListCmd) Run(ctx context.Context, a *app) error {
	rows, err := c.read(ctx, a)
	if err != nil {
		return err
	}
	if a.json {
		return a.printValue(rows)
	}
	t := newTable(a.out, "DEAD", "PARKED", "HANDLER", "FROM", "SUBJECT", "RETRIED", "REASON")
	for _, row := range rows {
		var l client.Letter
		if err := decode("/api/dead", row, &l); err != nil {
			return err
		}
		t.row(l.Sequence, l.ParkedAt, l.Handler, fmt.Sprintf("%s %d", l.Stream, l.StreamSequence), l.Subject, l.RetriedAt, l.Reason)
	}
	return t.end()
}

// read asks for pages until there are enough: one may be short, or empty, and not the last.
func (c *deadListCmd) read(ctx context.Context, a *app) ([]json.RawMessage, error) {
	rows := []json.RawMessage{}
	if c.Limit <= 0 {
		return rows, nil
	}
	api, err := a.client()
	if err != nil {
		return nil, err
	}
	defer api.Close()
	q := url.Values{"limit": {strconv.Itoa(c.Limit)}}
	setIf(q, "handler", c.Handler)
	enough := errors.New("enough")
	err = api.Pages(ctx, client.Request{Method: http.MethodGet, Path: "/api/dead", Query: q}, func(body []byte) error {
		var page []json.RawMessage
		if err := decode("/api/dead", body, &page); err != nil {
			return err
		}
		if rows = append(rows, page...); len(rows) >= c.Limit {
			return enough
		}
		return nil
	})
	if err != nil && !errors.Is(err, enough) {
		return nil, err
	}
	return rows[:min(c.Limit, len(rows))], nil
}

type deadShowCmd struct {
	Sequence uint64 `arg:"" help:"Its sequence in DEAD, the first column of the list."`
}

func (c *deadShowCmd) Run(ctx context.Context, a *app) error {
	var l client.Letter
	if done, err := a.get(ctx, client.Path("api", "dead", strconv.FormatUint(c.Sequence, 10)), nil, &l); done || err != nil {
		return withHint(err, knownDead)
	}
	t := newTable(a.out, "dead", l.Sequence)
	t.row("parked", l.ParkedAt)
	t.row("handler", l.Handler)
	t.row("reason", l.Reason)
	t.row("from", fmt.Sprintf("%s %d", l.Stream, l.StreamSequence))
	t.row("subject", l.Subject)
	if l.RetriedAt != nil {
		t.row("retried", when(*l.RetriedAt)+" by "+l.RetriedBy)
	}
	if l.RetryRefused != "" {
		t.row("retry", "refused: "+l.RetryRefused)
	}
	names := make([]string, 0, len(l.Headers))
	for name := range l.Headers {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		t.row("header", name+": "+l.Headers[name])
	}
	switch {
	case l.Body == nil:
		t.row("body", "too large to be kept, and its stream has it no more")
	case l.Encoding != "text":
		t.row("body", fmt.Sprintf("%d bytes that are no text; --json prints them as %s", *l.Size, l.Encoding))
	}
	if err := t.end(); err != nil {
		return err
	}
	if l.Body != nil && l.Encoding == "text" {
		stream{name: "body", text: *l.Body}.print(a.out, 0)
	}
	return nil
}

type deadRetryCmd struct {
	Sequences []uint64 `arg:"" name:"sequence" help:"Sequences in DEAD, the first column of the list."`
}

// Help is shown below the flags.
func (c *deadRetryCmd) Help() string {
	return `For what endpoints reported and a newer version can read: it is appended to the log as it was, and read as if it came now. What it
can't be done with is refused, and "kanade dead show" says why.`
}

// Run retries every one; what is refused keeps no other back.
func (c *deadRetryCmd) Run(ctx context.Context, a *app) error {
	api, err := a.client()
	if err != nil {
		return err
	}
	defer api.Close()
	answers := []json.RawMessage{}
	var errs []error
	for _, seq := range c.Sequences {
		answer, err := api.Do(ctx, client.Request{Method: http.MethodPost, Path: client.Path("api", "dead", strconv.FormatUint(seq, 10), "retry")})
		if u, ok := errors.AsType[*client.Unreachable](err); ok {
			errs = append(errs, u)
			break
		}
		if err != nil {
			errs = append(errs, withHint(err, knownDead))
			continue
		}
		answers = append(answers, answer.Body)
		var r client.Retried
		if err := decode("retry", answer.Body, &r); err != nil {
			return err
		}
		switch {
		case a.json:
		case r.Again:
			fmt.Fprintf(a.out, "dead letter %d had been retried before: it is in the log once (log %d)\n", r.DeadSequence, r.Sequence)
		default:
			fmt.Fprintf(a.out, "dead letter %d is appended anew (log %d)\n", r.DeadSequence, r.Sequence)
		}
	}
	if a.json {
		errs = append(errs, a.printValue(answers))
	}
	return errors.Join(errs...)
}
