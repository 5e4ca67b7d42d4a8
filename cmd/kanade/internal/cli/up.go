package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"kanade/cmd/kanade/internal/home"
	"kanade/cmd/kanade/internal/up"
	"kanade/libs/process"
)

type upCmd struct {
	Demo       bool   `help:"Register example jobs, run one on this machine and show what happens."`
	Once       bool   `help:"End after the demo; exit code 0 if its job succeeded."`
	Data       string `placeholder:"DIR" type:"path" help:"Data directory; by default 'kanade' in your data directory."`
	Listen     string `default:"127.0.0.1:8080" help:"Address of the API."`
	NATSListen string `name:"nats-listen" default:"127.0.0.1:4222" help:"Address of the broker, for agents on other machines."`
	NoAgent    bool   `help:"Run no agent on this machine."`
	Rebuild    bool   `help:"Build the read model anew from the log: after the log was replaced or restored."`
	AgentID    string `env:"KANADE_AGENT_ID" placeholder:"ID" help:"Id of this machine's agent; by default its host name."`
}

// tracingTimeout bounds how long the end waits for the last spans to go out.
const tracingTimeout = 2 * time.Second

func (c *upCmd) Run(ctx context.Context, a *app) error {
	switch {
	case c.Once && !c.Demo:
		return usageOf("up", errors.New("--once needs --demo"))
	case c.Demo && c.NoAgent:
		return usageOf("up", errors.New("--demo needs this machine's agent: leave --no-agent out"))
	}
	config, err := c.config(a.err)
	if err != nil {
		return err
	}
	stopTracing, err := process.Tracing(ctx, "kanade")
	if err != nil {
		return err
	}
	defer func() { // spans that can't be sent in time are lost
		within, cancel := context.WithTimeout(context.WithoutCancel(ctx), tracingTimeout)
		defer cancel()
		_ = stopTracing(within)
	}()
	s, err := up.Start(ctx, config)
	if err != nil {
		if ctx.Err() != nil {
			return nil // interrupted while it started
		}
		return err
	}
	c.greet(a.out, s)
	if c.Demo {
		if err = a.demo(ctx, s); err == nil {
			c.next(a.out, s)
		}
	}
	switch {
	case err != nil && ctx.Err() != nil: // interrupted: the end below says the rest
	case c.Once || err != nil:
		return errors.Join(err, s.Stop())
	}
	fmt.Fprintln(a.out, "\nCtrl-C ends it; the data stays.")
	select {
	case <-ctx.Done():
		fmt.Fprintln(a.out, "Ending… (Ctrl-C again hurries)")
	case <-s.Done():
	}
	return s.Stop()
}

func (c *upCmd) config(stderr io.Writer) (up.Config, error) {
	config := up.Config{
		Data: c.Data, Listen: c.Listen, NATSListen: c.NATSListen, Agent: !c.NoAgent, PC: c.AgentID, Rebuild: c.Rebuild,
	}
	if !c.Demo { // whose screen is to be read
		config.Log = slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelWarn})
	}
	var err error
	if config.Data == "" {
		config.Data, err = home.Default()
	}
	return config, err
}

func (c *upCmd) greet(w io.Writer, s *up.System) {
	agent := "no agent"
	if s.PC != "" {
		agent = "agent " + s.PC
	}
	fmt.Fprintf(w, "kanade is up, in one process: broker, api, projector, scheduler, %s.\n", agent)
	for _, line := range [][2]string{
		{"API", s.URL}, {"broker", s.BrokerURL}, {"data", s.Home.Dir}, {"token", s.Home.Path("api-token")}, {"log", s.Home.Path("kanade.log")},
	} {
		fmt.Fprintf(w, "  %-8s  %s\n", line[0], line[1])
	}
}

// next says what to try after the demo.
func (c *upCmd) next(w io.Writer, s *up.System) {
	if c.Once {
		fmt.Fprintf(w, "\nThat was all; the data stays. `%s up --demo` stays up. What to try then, in another terminal:\n", executable())
	} else {
		fmt.Fprintln(w, "\nWhat to try next, in another terminal:")
	}
	if hint := c.hint(s); hint != "" {
		fmt.Fprintln(w, "  "+strings.ReplaceAll(hint, "\n", "\n  "))
	}
	for _, command := range []string{
		"agent list", "exec disk-free --all --wait", "result list", "schedule ticks " + demoSchedule, "events tail --from 1", "--help",
	} {
		fmt.Fprintf(w, "  %s %s\n", executable(), command)
	}
	if !c.Once {
		fmt.Fprintf(w, "or open %s\n", s.URL)
	}
}

// hint is the line that lets the command line find this system; empty when it does by itself.
func (c *upCmd) hint(s *up.System) string {
	var vars [][2]string
	if s.URL != "http://127.0.0.1:8080" {
		vars = append(vars, [2]string{"KANADE_BACKEND_URL", s.URL})
	}
	if dir, err := home.Default(); err != nil || filepath.Clean(dir) != s.Home.Dir {
		vars = append(vars, [2]string{"KANADE_AUTH_TOKEN_FILE", s.Home.Path("api-token")})
	}
	var lines []string
	for _, v := range vars {
		if runtime.GOOS == "windows" {
			lines = append(lines, fmt.Sprintf("$env:%s = '%s'", v[0], v[1]))
		} else {
			lines = append(lines, fmt.Sprintf("export %s='%s'", v[0], v[1]))
		}
	}
	return strings.Join(lines, "\n")
}
