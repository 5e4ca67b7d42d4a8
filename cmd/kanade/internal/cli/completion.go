package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"os"
	"time"

	"github.com/alecthomas/kong"
	kongcompletion "github.com/jotaen/kong-completion"
	shell "github.com/posener/complete"

	"kanade/cmd/kanade/internal/client"
)

type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Help is shown below the flags.
func (c *completionCmd) Help() string {
	return `Put the line for your shell into its start file:

  bash  source <(kanade completion bash)
  zsh   source <(kanade completion zsh)
  fish  kanade completion fish | source`
}

func (c *completionCmd) Run(k *kong.Context) error {
	return (&kongcompletion.Completion{Shell: c.Shell, Code: true}).Run(k)
}

// completionTimeout bounds what a press of the tab key waits for names from the API.
const completionTimeout = time.Second

// complete answers a shell that asks what may follow (it sets COMP_LINE), and reports whether it did.
func complete(ctx context.Context, parser *kong.Kong, a *app) bool {
	if os.Getenv("COMP_LINE") == "" {
		return false
	}
	names := func(path, list, key string) shell.Predictor {
		return shell.PredictFunc(func(shell.Args) []string { return a.names(ctx, path, list, key) })
	}
	command, err := kongcompletion.Command(parser, kongcompletion.WithPredictors(map[string]shell.Predictor{
		"job": names("/api/jobs", "", "id"), "schedule": names("/api/schedules", "", "id"), "calendar": names("/api/calendars", "", "id"),
		"pc": names("/api/agents", "", "pc_id"), "group": names("/api/groups", "groups", "name"),
		"exec": names("/api/executions", "", "exec_id"),
	}))
	if err != nil {
		return false
	}
	exec := command.Sub["exec"]
	run := exec.Sub["run"] // may be left out
	exec.Args, exec.GlobalFlags = run.Args, run.GlobalFlags
	command.Sub["exec"] = exec
	c := shell.New(parser.Model.Name, command)
	c.Out = a.out
	return c.Complete()
}

// names asks the API for what exists; whoever presses tab wants no error.
func (a *app) names(ctx context.Context, path, list, key string) []string {
	ctx, cancel := context.WithTimeout(ctx, completionTimeout)
	defer cancel()
	// The parser has not run: only the environment says where the API is.
	c := connection{
		BackendURL: cmp.Or(os.Getenv("KANADE_BACKEND_URL"), "http://127.0.0.1:8080"),
		AuthToken:  os.Getenv("KANADE_AUTH_TOKEN"), AuthTokenFile: os.Getenv("KANADE_AUTH_TOKEN_FILE"),
	}
	answer, err := (&app{connection: &c}).do(ctx, client.Request{Method: http.MethodGet, Path: path})
	if err != nil {
		return nil
	}
	body := answer.Body
	if list != "" {
		var wrapper map[string]json.RawMessage
		if json.Unmarshal(body, &wrapper) != nil {
			return nil
		}
		body = wrapper[list]
	}
	var rows []map[string]any
	if json.Unmarshal(body, &rows) != nil {
		return nil
	}
	var names []string
	for _, row := range rows {
		if name, ok := row[key].(string); ok {
			names = append(names, name)
		}
	}
	return names
}
