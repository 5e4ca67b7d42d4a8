package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"kanade/cmd/kanade/internal/client"
)

type execShowCmd struct {
	ID    string `arg:"" help:"Exec." predictor:"exec"`
	State string `help:"Only endpoints in this state." placeholder:"STATE"`
	Watch bool   `help:"Show it as it moves until it has ended; Ctrl-C ends the watching, not the exec."`
}

func (c *execShowCmd) Run(ctx context.Context, a *app) error {
	api, err := a.client()
	if err != nil {
		return err
	}
	defer api.Close()
	if c.Watch && a.asOf != "" {
		return usageOf("exec show", errors.New("--watch shows what happens, and the past does not"))
	}
	if c.Watch {
		return a.watch(ctx, api, c.ID)
	}
	v, err := readExec(ctx, api, c.ID, c.State, 0)
	if err != nil {
		return withHint(err, knownExecs)
	}
	if a.json {
		return a.printValue(v)
	}
	width := 0
	if size := terminalSize(a.out); size != nil {
		width, _ = size()
	}
	return v.print(a.out, time.Now(), width)
}

// execView is all that the API says of an exec. The raw documents go out with --json.
type execView struct {
	Execution json.RawMessage   `json:"execution"`
	Waves     json.RawMessage   `json:"waves"`
	Failures  json.RawMessage   `json:"failures"`
	Targets   []json.RawMessage `json:"targets"`
	Results   json.RawMessage   `json:"results"`
}

// maxFailures is how many groups of equal failures a picture holds.
const maxFailures = 10

func readExec(ctx context.Context, api *client.Client, id, state string, minSequence uint64) (v execView, err error) {
	answer, err := api.Do(ctx, client.Request{Method: http.MethodGet, Path: client.Path("api", "executions", id), MinSequence: minSequence})
	if err != nil {
		return v, err
	}
	if err := decode("exec "+id, answer.Body, &v); err != nil {
		return v, err
	}
	if v.Waves, v.Failures, err = readWaves(ctx, api, id, minSequence); err != nil {
		return v, err
	}
	v.Targets = []json.RawMessage{}
	q := url.Values{"limit": {"1000"}}
	setIf(q, "state", state)
	r := client.Request{Method: http.MethodGet, Path: client.Path("api", "executions", id, "targets"), Query: q, MinSequence: minSequence}
	err = api.Pages(ctx, r, func(body []byte) error {
		var page []json.RawMessage
		if err := decode("targets", body, &page); err != nil {
			return err
		}
		v.Targets = append(v.Targets, page...)
		return nil
	})
	return v, err
}

// readWaves reads what a picture shows beside the exec itself.
func readWaves(ctx context.Context, api *client.Client, id string, minSequence uint64) (waves, failures json.RawMessage, err error) {
	answer, err := api.Do(ctx, client.Request{
		Method: http.MethodGet, Path: client.Path("api", "executions", id, "waves"), MinSequence: minSequence,
	})
	if err != nil {
		return nil, nil, err
	}
	waves = answer.Body
	answer, err = api.Do(ctx, client.Request{
		Method: http.MethodGet, Path: client.Path("api", "executions", id, "failures"), MinSequence: minSequence,
		Query: url.Values{"limit": {strconv.Itoa(maxFailures)}},
	})
	return waves, answer.Body, err
}

// picture is what the view shows beside the single endpoints.
func (v execView) picture() (p picture, err error) {
	for _, part := range []struct {
		what string
		doc  json.RawMessage
		into any
	}{{"exec", v.Execution, &p.exec}, {"waves", v.Waves, &p.waves}, {"failures", v.Failures, &p.failures}} {
		if err := decode(part.what, part.doc, part.into); err != nil {
			return p, err
		}
	}
	return p, nil
}

func (v execView) print(w io.Writer, now time.Time, width int) error {
	p, err := v.picture()
	if err != nil {
		return err
	}
	if err := p.print(w, now, width); err != nil || len(v.Targets) == 0 {
		return err
	}
	fmt.Fprintln(w)
	return v.printTargets(w)
}

func (v execView) printTargets(w io.Writer) error {
	t := newTable(w, "PC", "STATE", "EXIT", "WAVE", "AT", "RESULT", "REASON")
	for _, raw := range v.Targets {
		var x client.Target
		if err := decode("targets", raw, &x); err != nil {
			return err
		}
		var notes []string
		if x.Reason != "" {
			notes = append(notes, x.Reason)
		}
		if x.Late {
			notes = append(notes, "after the end")
		}
		t.row(x.PCID, x.State, x.Code, x.Wave, x.At, x.ResultID, strings.Join(notes, ", "))
	}
	return t.end()
}
