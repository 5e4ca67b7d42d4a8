// Command agent runs scripts on this endpoint for kanade.
package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"kanade/services/agent"
)

type cli struct {
	agent.Config
	Run         struct{} `cmd:"" default:"1" help:"Run the agent."`
	Healthcheck struct{} `cmd:"" help:"Ask the running agent whether it works; exit code 1 if not."`
}

func main() {
	var c cli
	exit := kong.Exit(func(code int) { os.Exit(min(code, 2)) }) // 2 is wrong usage
	command := kong.Parse(&c, exit, kong.Name("kanade-agent"), kong.Description("Runs scripts on this endpoint for kanade.")).Command()
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.LogLevel)) // kong has checked it
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	run := func() error { return agent.Run(ctx, c.Config, agent.Deps{Logger: logger}) }
	if command == "healthcheck" {
		run = func() error { return agent.Healthcheck(ctx, c.Config) }
	}
	if err := run(); err != nil {
		logger.Error("agent ends", "error", err)
		os.Exit(1)
	}
}
