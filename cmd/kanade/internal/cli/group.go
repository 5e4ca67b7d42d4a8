package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"kanade/cmd/kanade/internal/client"
)

type groupCmd struct {
	Add  groupAddCmd  `cmd:"" help:"Put endpoints into a group; a group exists while it has members."`
	Rm   groupRmCmd   `cmd:"" help:"Take endpoints out of a group."`
	List groupListCmd `cmd:"" past:"" help:"List the groups and their members."`
}

type groupAddCmd struct {
	Group string   `arg:"" help:"Group." predictor:"group"`
	PCs   []string `arg:"" name:"pc" help:"Endpoints." predictor:"pc"`
}

func (c *groupAddCmd) Run(ctx context.Context, a *app) error {
	body, err := json.Marshal(map[string]string{"group": c.Group})
	if err != nil {
		return err
	}
	return a.change(ctx, c.PCs, func(pc string) client.Request {
		return client.Request{
			Method: http.MethodPost, Path: client.Path("api", "agents", pc, "groups"), Body: body, ContentType: client.JSON,
		}
	})
}

type groupRmCmd struct {
	Group string   `arg:"" help:"Group." predictor:"group"`
	PCs   []string `arg:"" name:"pc" help:"Endpoints." predictor:"pc"`
}

func (c *groupRmCmd) Run(ctx context.Context, a *app) error {
	return a.change(ctx, c.PCs, func(pc string) client.Request {
		return client.Request{Method: http.MethodDelete, Path: client.Path("api", "agents", pc, "groups", c.Group)}
	})
}

// change asks for one change to each endpoint's groups; a refused one keeps no other back.
func (a *app) change(ctx context.Context, pcs []string, request func(pc string) client.Request) error {
	api, err := a.client()
	if err != nil {
		return err
	}
	defer api.Close()
	after := map[string][]string{}
	var errs []error
	for _, pc := range pcs {
		answer, err := api.Do(ctx, request(pc))
		if u, ok := errors.AsType[*client.Unreachable](err); ok {
			errs = append(errs, u)
			break
		}
		var now client.Agent
		if err == nil {
			err = decode("groups", answer.Body, &now)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", pc, err))
			continue
		}
		after[pc] = now.Groups
		if !a.json {
			fmt.Fprintf(a.out, "%s: %s\n", pc, cell(now.Groups))
		}
	}
	if a.json {
		errs = append(errs, a.printValue(after))
	}
	return errors.Join(errs...)
}

type groupListCmd struct{}

func (c *groupListCmd) Run(ctx context.Context, a *app) error {
	var list struct{ Groups []client.Group }
	if done, err := a.get(ctx, "/api/groups", nil, &list); done || err != nil {
		return err
	}
	t := newTable(a.out, "GROUP", "SIZE", "MEMBERS")
	for _, g := range list.Groups {
		t.row(g.Name, len(g.Members), g.Members)
	}
	return t.end()
}
