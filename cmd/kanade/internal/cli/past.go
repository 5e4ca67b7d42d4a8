package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"
)

// tagPast marks, in the grammar, the commands that can be asked as of a past moment: those that read the read model.
const tagPast = "past"

type atCmd struct {
	Moment  string   `arg:"" name:"moment" help:"A sequence of the log, or a time: RFC 3339 or a date, UTC unless it has a zone, or how long ago (36h). It means the last fact that was stored then."`
	Command []string `arg:"" passthrough:"" help:"The command, with its flags."`
}

// Help is shown below the flags.
func (c *atCmd) Help() string {
	return `Everything that is read can be read as it was:

  kanade at 2026-01-31T08:00:00Z exec list
  kanade at 4711 exec show EXEC
  kanade at 2026-01-31 result search disk full
  kanade at 36h agent list

The first look at a moment takes as long as the read model of it is built. Who was there then is not known: endpoints are
listed as never heard.`
}

// Run runs the command behind the moment, which must be one that only reads.
func (c *atCmd) Run(ctx context.Context, a *app) error {
	var g grammar
	then := &app{connection: &g.connection, out: a.out, err: a.err}
	parser, err := newParser(&g, then)
	if err != nil {
		return err
	}
	k, err := parser.Parse(append(a.flags(), c.Command...))
	if err != nil {
		return usage(err)
	}
	if !ofPast(k.Selected()) {
		return fmt.Errorf("`%s` can't be asked as of a past moment: it changes something, or reads what is not in the read model\nsee `kanade at --help`",
			strings.Join(plain(strings.Fields(k.Command())), " "))
	}
	then.json, g.asOf = g.JSON, momentText(c.Moment, time.Now())
	k.BindTo(ctx, (*context.Context)(nil))
	return k.Run(then)
}

// momentText is a moment as the API reads it.
func momentText(given string, now time.Time) string {
	if _, err := strconv.ParseUint(given, 10, 64); err == nil {
		return given
	}
	if then, ok := agoText(given, now); ok {
		return then
	}
	return given
}

func ofPast(command *kong.Node) bool {
	return command != nil && command.Tag != nil && command.Tag.Has(tagPast)
}

// flags are those of this command line that another one is to have as well; what it says itself comes later and wins.
func (a *app) flags() []string {
	flags := []string{"--backend-url=" + a.BackendURL}
	if a.AuthToken != "" {
		flags = append(flags, "--auth-token="+a.AuthToken)
	}
	if a.AuthTokenFile != "" {
		flags = append(flags, "--auth-token-file="+a.AuthTokenFile)
	}
	if a.json {
		flags = append(flags, "--json")
	}
	return flags
}
