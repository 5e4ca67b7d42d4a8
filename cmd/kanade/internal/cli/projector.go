package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"kanade/cmd/kanade/internal/client"
)

type projectorCmd struct {
	List    projectorListCmd    `cmd:"" help:"List the copies of the read model, and how far they are."`
	Verify  projectorVerifyCmd  `cmd:"" help:"Hold every copy of the read model against the log, row by row."`
	Rebuild projectorRebuildCmd `cmd:"" help:"Build every copy of the read model anew from the log; queries go on meanwhile."`
}

type projectorListCmd struct{}

func (c *projectorListCmd) Run(ctx context.Context, a *app) error {
	var m client.ReadModel
	if done, err := a.get(ctx, "/api/read-model", nil, &m); done || err != nil {
		return err
	}
	t := newTable(a.out, "SLOT", "STATE", "SEQUENCE", "AS OF", "FILE")
	for _, x := range m.Copies {
		t.row(x.Slot, copyState(x), fmt.Sprint(x.Sequence), when(x.AppliedAt), x.File)
	}
	return t.end()
}

func copyState(x client.Copy) string {
	switch {
	case x.Asked:
		return "served, asked"
	case x.Served:
		return "served"
	default:
		return "being built"
	}
}

type projectorVerifyCmd struct{ checkFlags }

func (c *projectorVerifyCmd) Run(ctx context.Context, a *app) error { return c.run(ctx, a, "verify") }

type projectorRebuildCmd struct{ checkFlags }

func (c *projectorRebuildCmd) Run(ctx context.Context, a *app) error { return c.run(ctx, a, "rebuild") }

// checkFlags are those of both.
type checkFlags struct {
	reasonFlag
	Timeout  time.Duration `help:"How long to wait for the projectors' answers." default:"10m"`
	Replicas int           `help:"How many projectors there are; 0: as many as the API sees in its own directory." default:"0"`
}

// run asks and prints each projector's answer. It ends with 2 where a row differed or a projector could not check.
func (c *checkFlags) run(ctx context.Context, a *app, word string) error {
	var m client.ReadModel
	api, err := a.client()
	if err != nil {
		return err
	}
	defer api.Close()
	answer, err := api.Do(ctx, client.Request{Method: http.MethodGet, Path: "/api/read-model"})
	if err == nil {
		err = decode("the read model", answer.Body, &m)
	}
	if err != nil {
		return err
	}
	expected := c.Replicas
	if expected == 0 {
		expected = served(m)
	}
	body, err := c.body(nil)
	if err != nil {
		return err
	}
	asked, err := api.Do(ctx, client.Request{Method: http.MethodPost, Path: "/api/read-model/" + word, Body: body, ContentType: client.JSON})
	if err != nil {
		return err
	}
	return c.await(ctx, a, api, asked.Sequence, expected)
}

func served(m client.ReadModel) (n int) {
	for _, x := range m.Copies {
		if x.Served {
			n++
		}
	}
	return max(n, 1)
}

func (c *checkFlags) await(ctx context.Context, a *app, api *client.Client, from uint64, expected int) error {
	waiting, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	noted := func(err error) { fmt.Fprintf(a.err, "kanade: %v; trying again\n", err) }
	answers, bad, asked := 0, 0, questions{}
	both := client.Filter{From: from, Type: typeCheckRequested + "," + typeChecked}
	err := api.Follow(waiting, both, noted, func(e client.Event, raw []byte) (bool, error) {
		if !asked.answeredBy(e) {
			return true, nil
		}
		var x client.Checked
		if err := json.Unmarshal(e.Data, &x); err != nil {
			return false, fmt.Errorf("read what a projector found: %w", err)
		}
		if answers++; x.Error != "" || len(x.Differing) > 0 {
			bad++
		}
		if a.json {
			fmt.Fprintf(a.out, "%s\n", raw)
		} else {
			fmt.Fprint(a.out, checkedText(x))
		}
		return answers < expected, nil
	})
	switch {
	case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
		return coded{3, fmt.Errorf("%d of %d projectors have answered in %s; the others do when they can: `%s events tail --from %d --type %s`",
			answers, expected, c.Timeout, executable(), from, typeChecked)}
	case err != nil:
		return err
	case bad > 0:
		return coded{2, nil}
	}
	return nil
}

const (
	typeCheckRequested = "kanade.config.check-requested.v1"
	typeChecked        = "kanade.config.checked.v1"
)

// questions are the ids of the requests of a check, from one's own on.
type questions map[string]bool

// answeredBy reports whether a fact answers one of them. An answer to a later one does as well: a projector that is asked
// again before it has begun begins once. One to an earlier request, which a projector gives that was busy or away, does not.
func (q questions) answeredBy(e client.Event) bool {
	if e.Type == typeCheckRequested {
		q[e.ID] = true
	}
	return e.Type == typeChecked && q[e.CausationID]
}

func checkedText(x client.Checked) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s on %s: ", x.Slot, x.Host)
	switch {
	case x.Error != "" && !x.Rebuilt:
		fmt.Fprintf(&b, "not checked: %s\n", x.Error)
		return b.String()
	case x.Error != "":
		fmt.Fprintf(&b, "the file was damaged: %s\n", x.Error)
	case len(x.Differing) == 0:
		fmt.Fprintf(&b, "every row is as the log says, up to sequence %d\n", x.Sequence)
	default:
		var tables []string
		for _, table := range slices.Sorted(maps.Keys(x.Differing)) {
			tables = append(tables, fmt.Sprintf("%d in %s", x.Differing[table], table))
		}
		fmt.Fprintf(&b, "rows that are not as the log says, up to sequence %d: %s\n", x.Sequence, strings.Join(tables, ", "))
	}
	for _, d := range x.Differences {
		fmt.Fprintf(&b, "  %s\n", printable(d))
	}
	if x.Rebuilt {
		b.WriteString("  the new file is served\n")
	}
	return b.String()
}
