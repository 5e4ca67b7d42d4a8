package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"kanade/cmd/kanade/internal/client"
	"kanade/libs/events"
)

type eventsCmd struct {
	Tail eventsTailCmd `cmd:"" help:"Print events as they are stored, one a line, until Ctrl-C."`
}

type eventsTailCmd struct {
	From uint64 `help:"Begin at this LOG sequence; without it only what is new is printed." placeholder:"SEQ"`
	Exec string `help:"Only facts of this exec."`
	Type string `help:"Only facts of this type, exec.requested or kanade.exec.requested.v1; several with commas between them."`
}

func (c *eventsTailCmd) Run(ctx context.Context, a *app) error {
	types, err := typesOf(c.Type)
	if err != nil {
		return usageOf("events tail", err)
	}
	api, err := a.client()
	if err != nil {
		return err
	}
	defer api.Close()
	// Nobody there at the beginning is a mistake; nobody there later is waited for.
	if _, err := api.Do(ctx, client.Request{Method: http.MethodGet, Path: "/api/version"}); err != nil {
		return err
	}
	noted := func(err error) { fmt.Fprintf(a.err, "kanade: %v; trying again\n", err) }
	err = api.Follow(ctx, client.Filter{From: c.From, Exec: c.Exec, Type: types}, noted, func(e client.Event, raw []byte) (bool, error) {
		if a.json {
			_, err := fmt.Fprintf(a.out, "%s\n", raw)
			return true, err
		}
		_, err := fmt.Fprintf(a.out, "%8d  %s  %-28s %s  %s\n", e.Sequence, e.Time.Local().Format("2006-01-02 15:04:05.000"),
			shortType(e.Type), printable(e.Subject), printable(e.Actor))
		return true, err
	})
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// undecodable is the type under which the API shows messages that are no facts.
const undecodable = "undecodable"

// typesOf gives the versioned names of the types that are named, short or in full.
func typesOf(text string) (string, error) {
	var names []string
	for name := range strings.SplitSeq(text, ",") {
		if name = strings.TrimSpace(name); name == "" {
			continue
		}
		found := name == undecodable
		if found {
			names = append(names, name)
		}
		known := []string{}
		for _, t := range events.Types() {
			known = append(known, shortType(t.Name))
			if name == t.Name || name == shortType(t.Name) || "kanade."+name == t.Name {
				names, found = append(names, t.Name), true
			}
		}
		if !found {
			return "", fmt.Errorf("--type %q: there is no such fact; there are %s", name, strings.Join(known, ", ")+" and "+undecodable)
		}
	}
	return strings.Join(names, ","), nil
}

// shortType is exec.requested of kanade.exec.requested.v1: in a terminal the rest is noise.
func shortType(name string) string {
	parts := strings.Split(name, ".")
	if len(parts) == 4 && parts[0] == "kanade" {
		return parts[1] + "." + parts[2]
	}
	return name
}
