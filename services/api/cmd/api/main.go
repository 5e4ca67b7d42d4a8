// Command api serves the HTTP of kanade. See package api.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"kanade/services/api"
)

func main() {
	var cli struct {
		api.Config
		LogLevel    slog.Level `name:"log-level" env:"KANADE_LOG_LEVEL" default:"info" help:"debug, info, warn or error."`
		Serve       struct{}   `cmd:"" default:"1" help:"Serve the API (the default)."`
		Healthcheck struct{}   `cmd:"" help:"Ask the API on this machine whether it is ready; exit 0 if so."`
	}
	command := kong.Parse(&cli, kong.Name("api"), kong.Description("The HTTP API of kanade."))
	slog.SetDefault(slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: cli.LogLevel})))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	run := func() error { return api.Run(ctx, cli.Config, api.Deps{}) }
	if command.Command() == "healthcheck" {
		run = func() error { return api.Healthcheck(ctx, cli.Config) }
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}
