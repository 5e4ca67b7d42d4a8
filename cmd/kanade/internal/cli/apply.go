package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"

	"kanade/cmd/kanade/internal/client"
	"kanade/cmd/kanade/internal/document"
	"kanade/libs/catalog"
)

type applyCmd struct {
	Files  []string `name:"file" short:"f" required:"" sep:"none" placeholder:"PATH" help:"A file, or a directory of which everything below that is a job, a schedule or a calendar is applied; may be repeated."`
	DryRun bool     `help:"Show what would be done; do nothing. Ends with 2 where there is something to do."`
	Prune  bool     `help:"Delete what is stored and not in the files, of the kinds that are in them. Needs --yes."`
	Yes    bool     `help:"Delete without asking back."`
}

// Help is shown below the flags.
func (c *applyCmd) Help() string {
	return `Jobs, schedules and calendars are told apart by their keys; what is none of them is left out. What is stored becomes what the
files say, text and comments too, and whether a schedule is enabled. A document that somebody else changes meanwhile is left as it is,
with an error.

--prune goes by directories alone, and deletes only of kinds of which they hold at least one: a directory of schedules deletes no job. A job
that is deleted is revoked.`
}

// deed is what is done with one document.
type deed struct {
	Action string        `json:"action"`
	Kind   document.Kind `json:"kind"`
	ID     string        `json:"id"`
	File   string        `json:"file,omitempty"`
	// Diff is how the stored text becomes that of the file.
	Diff []string `json:"diff,omitempty"`
	// Sequence is the LOG sequence of what was done; 0 where nothing was.
	Sequence uint64 `json:"sequence,omitempty"`

	doc  document.Document
	etag string
}

// The actions.
const (
	actCreate    = "create"
	actChange    = "change"
	actUnchanged = "unchanged"
	actDelete    = "delete"
)

func (c *applyCmd) Run(ctx context.Context, a *app) error {
	for _, path := range c.Files {
		if info, err := os.Stat(path); c.Prune && err == nil && !info.IsDir() {
			return usageOf("apply", fmt.Errorf("%s is a file: --prune deletes what is in none of the files, and goes by directories", path))
		}
	}
	docs, others, err := document.Tree(c.Files)
	if err != nil {
		return fmt.Errorf("%w\nnothing was applied", err)
	}
	for _, file := range others {
		fmt.Fprintf(a.err, "%s: no job, schedule or calendar, left out\n", file)
	}
	api, err := a.client()
	if err != nil {
		return err
	}
	defer api.Close()
	deeds, err := c.plan(ctx, api, docs)
	if err != nil {
		return err
	}
	count := map[string]int{}
	for _, d := range deeds {
		count[d.Action]++
	}
	todo := len(deeds) - count[actUnchanged]
	if !a.json {
		a.printDeeds(deeds)
		fmt.Fprintf(a.out, "%d to create, %d to change, %d to delete, %d unchanged\n", count[actCreate], count[actChange], count[actDelete], count[actUnchanged])
	}
	switch {
	case c.DryRun || todo == 0:
		if a.json {
			err = a.printValue(deeds)
		}
		if err == nil && todo > 0 {
			err = coded{2, nil}
		}
		return err
	case count[actDelete] > 0 && !c.Yes:
		return fmt.Errorf("%s would be deleted, for good: repeat it with --yes\nnothing was applied", plural(count[actDelete], "document"))
	}
	err = a.carryOut(ctx, api, deeds)
	if a.json {
		err = errors.Join(err, a.printValue(deeds))
	}
	return err
}

// plan compares the documents with what is stored: first what is written, in the order of the documents, then what is
// deleted, what names others before what is named.
func (c *applyCmd) plan(ctx context.Context, api *client.Client, docs []document.Document) ([]*deed, error) {
	deeds := []*deed{}
	here := map[document.Kind]map[string]bool{}
	for _, doc := range docs {
		if here[doc.Kind] == nil {
			here[doc.Kind] = map[string]bool{}
		}
		here[doc.Kind][doc.ID] = true
		d, err := compare(ctx, api, doc)
		if err != nil {
			return nil, err
		}
		deeds = append(deeds, d)
	}
	if !c.Prune {
		return deeds, nil
	}
	for _, kind := range []document.Kind{document.Schedule, document.Job, document.Calendar} {
		if here[kind] == nil {
			continue
		}
		ids, err := storedIDs(ctx, api, kind)
		if err != nil {
			return nil, err
		}
		for _, id := range ids {
			if here[kind][id] {
				continue
			}
			answer, err := api.Do(ctx, client.Request{Method: http.MethodGet, Path: client.Path("api", string(kind)+"s", id)})
			if err != nil {
				return nil, err
			}
			deeds = append(deeds, &deed{Action: actDelete, Kind: kind, ID: id, etag: answer.ETag})
		}
	}
	return deeds, nil
}

// compare holds a document against the stored one. The text counts too, where it was written as YAML: comments are kept.
func compare(ctx context.Context, api *client.Client, doc document.Document) (*deed, error) {
	d := &deed{Action: actCreate, Kind: doc.Kind, ID: doc.ID, File: doc.File, doc: doc}
	answer, err := api.Do(ctx, client.Request{Method: http.MethodGet, Path: client.Path("api", string(doc.Kind)+"s", doc.ID, "yaml")})
	if refused, ok := errors.AsType[*client.Refused](err); ok && refused.Status == http.StatusNotFound {
		return d, nil
	}
	if err != nil {
		return nil, err
	}
	text := doc.Body
	if doc.Type == catalog.JSON {
		if text, err = yaml.JSONToYAML(doc.Stored); err != nil {
			return nil, fmt.Errorf("%s: write as YAML: %w", doc.File, err)
		}
	}
	d.Action, d.etag = actChange, answer.ETag
	same := answer.ETag == `"`+catalog.Hash(doc.Stored)+`"`
	if same && (doc.Type == catalog.JSON || string(text) == string(answer.Body)) {
		d.Action = actUnchanged
		return d, nil
	}
	d.Diff = difference(string(answer.Body), string(text))
	return d, nil
}

func storedIDs(ctx context.Context, api *client.Client, kind document.Kind) ([]string, error) {
	var ids []string
	err := api.Pages(ctx, client.Request{Method: http.MethodGet, Path: client.Path("api", string(kind)+"s")}, func(body []byte) error {
		var page []struct {
			ID string `json:"id"`
		}
		if err := json.Unmarshal(body, &page); err != nil {
			return fmt.Errorf("read the %ss: %w", kind, err)
		}
		for _, x := range page {
			ids = append(ids, x.ID)
		}
		return nil
	})
	slices.Sort(ids)
	return slices.Compact(ids), err
}

func (a *app) printDeeds(deeds []*deed) {
	for _, d := range deeds {
		if d.Action == actUnchanged {
			continue
		}
		line := fmt.Sprintf("%s %s %s", d.Action, d.Kind, d.ID)
		if d.File != "" {
			line += "  (" + d.File + ")"
		}
		if d.Action == actDelete && d.Kind == document.Job {
			line += "  (and revoke it)"
		}
		fmt.Fprintln(a.out, printable(line))
		for _, changed := range d.Diff {
			fmt.Fprintln(a.out, "    "+printable(strings.TrimRight(changed, "\r")))
		}
	}
}

// carryOut does what the plan says. What one document is refused for keeps others of its kind not back; nothing is deleted
// after an error.
func (a *app) carryOut(ctx context.Context, api *client.Client, deeds []*deed) error {
	var errs []error
	var jobs, schedules []string
	var last uint64
	done, unchanged := 0, 0
	for _, d := range deeds {
		var r client.Request
		switch {
		case d.Action == actUnchanged:
			unchanged++
			continue
		case d.Action == actDelete && len(errs) > 0:
			continue
		case d.Action == actDelete:
			r = client.Request{Method: http.MethodDelete, Path: client.Path("api", string(d.Kind)+"s", d.ID)}
		default:
			r = request(d.doc)
		}
		r.IfMatch, r.IfNew = d.etag, d.Action == actCreate
		answer, err := api.Do(ctx, r)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s %s %s: %w", d.Action, d.Kind, d.ID, err))
			if _, away := errors.AsType[*client.Unreachable](err); away {
				break
			}
			continue
		}
		done++
		d.Sequence, last = answer.Sequence, max(last, answer.Sequence)
		switch {
		case d.Action == actDelete:
		case d.Kind == document.Job:
			jobs = append(jobs, d.ID)
		case d.Kind == document.Schedule:
			schedules = append(schedules, d.ID)
		}
	}
	if len(errs) > 0 {
		if !a.json {
			fmt.Fprintf(a.out, "%d of %d applied\n", done, len(deeds)-unchanged)
		}
		return errors.Join(errs...)
	}
	a.noteRevoked(ctx, api, jobs, last)
	a.noteSilent(ctx, api, schedules, last)
	// Who asks next is to find what was done here.
	_, err := api.Do(ctx, client.Request{Method: http.MethodGet, Path: "/api/freeze", MinSequence: last})
	if err != nil {
		a.note("it is stored, and not to be seen yet: %v", err)
	}
	if !a.json {
		fmt.Fprintf(a.out, "applied (log %d)\n", last)
	}
	return nil
}
