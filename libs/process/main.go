package process

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
)

// Service is a program of one service. C is its Config: a struct whose tags are kong's.
type Service[C any] struct {
	// Name of the program and of the service in traces: "kanade-api".
	Name, Description string
	Run               func(ctx context.Context, c C) error
	// Listen is where the service answers /readyz.
	Listen func(c C) string
	// GCPercent is what the collector is told unless GOGC says otherwise; 0 leaves it as it is.
	GCPercent int
}

// Main is the program: flags and environment, logger, signals, tracing, and the subcommand healthcheck. The result is the
// exit code: 0 clean, 1 an error, 2 a flag that is not understood (kong exits by itself). A first signal ends it cleanly,
// a second one at once.
func (s Service[C]) Main(args []string) int {
	var cli struct {
		Config      C          `embed:""`
		LogLevel    slog.Level `name:"log-level" env:"KANADE_LOG_LEVEL" default:"info" help:"debug, info, warn or error."`
		Serve       struct{}   `cmd:"" default:"1" help:"Run the service (the default)."`
		Healthcheck struct{}   `cmd:"" help:"Ask the service on this machine whether it is ready; exit 0 if so."`
	}
	parser, err := kong.New(&cli, kong.Name(s.Name), kong.Description(s.Description))
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		return 1
	}
	command, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintf(os.Stderr, "error: %v (try %s --help)\n", err, s.Name)
		return 2
	}
	if s.GCPercent > 0 && os.Getenv("GOGC") == "" {
		debug.SetGCPercent(s.GCPercent)
	}
	slog.SetDefault(slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: cli.LogLevel})))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	if command.Command() == "healthcheck" {
		err = Healthcheck(ctx, s.Listen(cli.Config))
	} else {
		err = s.serve(ctx, cli.Config)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		return 1
	}
	return 0
}

func (s Service[C]) serve(ctx context.Context, c C) error {
	stop, err := Tracing(ctx, s.Name)
	if err != nil {
		return err
	}
	defer func() {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
		defer cancel()
		_ = stop(last)
	}()
	return s.Run(ctx, c)
}
