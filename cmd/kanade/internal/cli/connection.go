package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"

	"kanade/cmd/kanade/internal/client"
	"kanade/cmd/kanade/internal/home"
)

// connection says which API, and as whom.
type connection struct {
	BackendURL    string `name:"backend-url" env:"KANADE_BACKEND_URL" default:"http://127.0.0.1:8080" help:"The API; by default that of 'kanade up' on this machine, ${default}." placeholder:"URL"`
	AuthToken     string `name:"auth-token" env:"KANADE_AUTH_TOKEN" hidden:"" help:"Token for the API; by the environment, so that no other user reads it in the list of processes."`
	AuthTokenFile string `name:"auth-token-file" env:"KANADE_AUTH_TOKEN_FILE" help:"File with the token for the API; without one, that of 'kanade up' on this machine is used." placeholder:"FILE"`

	// asOf is the past moment that is asked about; empty for the present.
	asOf string
}

// client opens the API. The token is that of the environment, that of the named file, or, for an API on this machine
// alone, the one that `kanade up` keeps in the default data directory: it is never sent to another host.
func (c *connection) client() (*client.Client, error) {
	token, source, err := c.token()
	if err != nil {
		return nil, err
	}
	api, err := client.New(c.BackendURL, token, source)
	if err != nil {
		return nil, err
	}
	return api.AsOf(c.asOf), nil
}

func (c *connection) token() (token, source string, err error) {
	switch {
	case c.AuthToken != "":
		return c.AuthToken, "KANADE_AUTH_TOKEN", nil
	case c.AuthTokenFile != "":
		text, err := os.ReadFile(c.AuthTokenFile)
		if err != nil {
			return "", "", fmt.Errorf("read the API's token: %w", err)
		}
		return strings.TrimSpace(string(text)), c.AuthTokenFile, nil
	case !onThisMachine(c.BackendURL):
		return "", "", nil
	}
	dir, err := home.Default()
	if err != nil {
		return "", "", nil // no such place on this machine, so no token in it
	}
	return home.APIToken(dir)
}

func onThisMachine(base string) bool {
	u, err := url.Parse(base)
	if err != nil {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}

// do sends one request and closes the connection.
func (a *app) do(ctx context.Context, r client.Request) (client.Answer, error) {
	c, err := a.client()
	if err != nil {
		return client.Answer{}, err
	}
	defer c.Close()
	return c.Do(ctx, r)
}

// get reads a document: with --json it is printed and done is true, else it is decoded into v.
func (a *app) get(ctx context.Context, path string, query url.Values, v any) (done bool, err error) {
	answer, err := a.do(ctx, client.Request{Method: http.MethodGet, Path: path, Query: query})
	if err != nil {
		return false, err
	}
	if a.json {
		return true, a.printJSON(answer.Body)
	}
	return false, decode(path, answer.Body, v)
}

// list reads a list, at most limit rows of it, however many pages they are: with --json it is printed and done is true,
// else it is decoded into v.
func (a *app) list(ctx context.Context, path string, query url.Values, limit int, v any) (done bool, err error) {
	c, err := a.client()
	if err != nil {
		return false, err
	}
	defer c.Close()
	rows := []json.RawMessage{}
	query.Set("limit", strconv.Itoa(limit))
	err = c.Pages(ctx, client.Request{Method: http.MethodGet, Path: path, Query: query}, func(body []byte) error {
		var page []json.RawMessage
		if err := decode(path, body, &page); err != nil {
			return err
		}
		if rows = append(rows, page...); len(rows) >= limit {
			return errEnough
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return false, err
	}
	whole, err := json.Marshal(rows[:min(limit, len(rows))])
	if err != nil {
		return false, err
	}
	if a.json {
		return true, a.printJSON(whole)
	}
	return false, decode(path, whole, v)
}

// errEnough ends the reading of pages.
var errEnough = errors.New("as many rows as were asked for")

// write sends what changes something: with --json the answer is printed, else the sentence is.
func (a *app) write(ctx context.Context, r client.Request, sentence string, args ...any) error {
	answer, err := a.do(ctx, r)
	if err != nil {
		return err
	}
	return a.written(answer, sentence, args...)
}

// written says what a request changed: with --json the answer is printed, else the sentence is.
func (a *app) written(answer client.Answer, sentence string, args ...any) error {
	if a.json && len(answer.Body) > 0 {
		return a.printJSON(answer.Body)
	}
	if a.json {
		return a.printJSON([]byte(fmt.Sprintf(`{"sequence":%d}`, answer.Sequence)))
	}
	fmt.Fprintf(a.out, sentence+"\n", args...)
	return nil
}

func decode(what string, body []byte, v any) error {
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("read the answer of %s: %w; is that a kanade API?", what, err)
	}
	return nil
}
