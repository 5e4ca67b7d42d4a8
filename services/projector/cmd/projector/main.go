// Command projector keeps a read model of kanade. See package projector.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"kanade/services/projector"
)

func main() {
	var cli struct {
		projector.Config
		LogLevel    slog.Level `name:"log-level" env:"KANADE_LOG_LEVEL" default:"info" help:"debug, info, warn or error."`
		Serve       struct{}   `cmd:"" default:"1" help:"Project (the default)."`
		Healthcheck struct{}   `cmd:"" help:"Ask the projector on this machine whether it lives; exit 0 if so."`
	}
	command := kong.Parse(&cli, kong.Name("projector"), kong.Description("Keeps a read model of kanade."))
	slog.SetDefault(slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: cli.LogLevel})))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	run := func() error { return projector.Run(ctx, cli.Config, projector.Deps{}) }
	if command.Command() == "healthcheck" {
		run = func() error { return projector.Healthcheck(ctx, cli.Config) }
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}
