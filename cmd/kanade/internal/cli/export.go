package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
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
func (c *exportFlags) export(ctx context.Context, a *app, noun, path string, q url.Values) error {
	q.Set("format", c.Format)
	api, err := a.client()
	if err != nil {
		return err
	}
	defer api.Close()
	var n int64
	download := func(to io.Writer) (err error) {
		n, err = api.Download(ctx, client.Request{Method: http.MethodGet, Path: path, Query: q}, to)
		return err
	}
	if c.Output == "" {
		err = download(a.out)
	} else if err = writeWhole(c.Output, download); err == nil {
		fmt.Fprintf(a.out, "%s: %d bytes\n", c.Output, n)
	}
	switch {
	case err == nil:
		return nil
	case n > 0:
		return fmt.Errorf("export %s: after %d bytes: %w", noun, n, err)
	default:
		return fmt.Errorf("export %s: %w", noun, err)
	}
}

// writeWhole writes a file that is whole or stays what it was. A pipe or a device is written as it comes.
func writeWhole(path string, write func(io.Writer) error) error {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		return errors.Join(write(f), f.Close())
	}
	partial := path + ".partial"
	f, err := os.Create(partial)
	if err != nil {
		return err
	}
	if err := errors.Join(write(f), f.Close()); err != nil {
		return errors.Join(err, os.Remove(partial))
	}
	return os.Rename(partial, path)
}
