package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"

	"kanade/cmd/kanade/internal/client"
)

// exportFlags are those of commands that write a whole list.
type exportFlags struct {
	Format string `enum:"csv,ndjson" default:"csv" help:"csv, or ndjson: a line of JSON for each."`
	Output string `short:"o" type:"path" help:"File to write; without it they go to stdout." placeholder:"FILE"`
}

// export writes all rows of a list; noun is what they are.
func (c *exportFlags) export(ctx context.Context, a *app, noun, path string, q url.Values) (err error) {
	q.Set("format", c.Format)
	api, err := a.client()
	if err != nil {
		return err
	}
	defer api.Close()
	to := a.out
	if c.Output != "" {
		f, err := os.Create(c.Output)
		if err != nil {
			return fmt.Errorf("export %s: %w", noun, err)
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		to = f
	}
	n, err := api.Download(ctx, client.Request{Method: http.MethodGet, Path: path, Query: q}, to)
	if err != nil {
		return fmt.Errorf("export %s: after %d bytes: %w", noun, n, err)
	}
	if c.Output != "" {
		fmt.Fprintf(a.out, "%s: %d bytes\n", c.Output, n)
	}
	return nil
}
