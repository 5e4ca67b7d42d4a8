// Package cli is the command line: its grammar, a file for every noun, and how answers look in a terminal.
//
// Commands speak to the API over HTTP ([client]); `up` and `broker` run things in this process ([up]); `backup` and
// `restore` alone speak to the broker ([backup]). Answers go to
// stdout, as tables or with --json as the API's own JSON; progress of a command that prints JSON, notes and errors go to
// stderr. Every error says what to do next where that is known.
//
// Exit codes: 0 done; 1 could not ask (usage, network, refused). `exec --wait`, `retry --wait` and `run` add 2, some
// endpoints did not succeed, and 3, nobody answered in the time given. `apply --dry-run` ends with 2 where there is something to do.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/alecthomas/kong"
)

// grammar is what the command line understands.
type grammar struct {
	connection
	JSON bool `name:"json" help:"Print the API's JSON instead of tables."`

	Up         upCmd         `cmd:"" help:"Run everything in this process: broker, api, projector, scheduler and an agent."`
	Job        jobCmd        `cmd:"" help:"Jobs: scripts, and how to run them."`
	Exec       execCmd       `cmd:"" help:"Run a job on endpoints, and see what happened."`
	Run        runCmd        `cmd:"" help:"Run a script on one endpoint and wait for it."`
	Kill       killCmd       `cmd:"" help:"Stop an exec and what runs of it, everywhere."`
	Cancel     cancelCmd     `cmd:"" help:"Stop an exec; what runs of it goes on."`
	Pause      pauseCmd      `cmd:"" help:"Hold back the waves of an exec."`
	Resume     resumeCmd     `cmd:"" help:"Let a paused exec go on."`
	Release    releaseCmd    `cmd:"" help:"Let a wave of an exec go out now."`
	Retry      retryCmd      `cmd:"" help:"Run an exec again where it did not succeed."`
	At         atCmd         `cmd:"" help:"Ask a command that reads as of a past moment."`
	Explain    explainCmd    `cmd:"" past:"" help:"Say why an endpoint did, did not, or did not yet run an exec."`
	Revoke     revokeCmd     `cmd:"" help:"Keep a job from being run; what has not begun is skipped."`
	Unrevoke   unrevokeCmd   `cmd:"" help:"Let a revoked job run again."`
	Freeze     freezeCmd     `cmd:"" help:"The freeze: no schedule of the fleet fires while it lasts."`
	Script     scriptCmd     `cmd:"" help:"Script objects: scripts that jobs name instead of holding them."`
	Result     resultCmd     `cmd:"" help:"Results: what each run gave."`
	Agent      agentCmd      `cmd:"" help:"Endpoints and their agents."`
	Group      groupCmd      `cmd:"" help:"Groups of endpoints."`
	Schedule   scheduleCmd   `cmd:"" help:"Schedules: when jobs run by themselves."`
	Calendar   calendarCmd   `cmd:"" help:"Named calendars: days that schedules leave out, or keep to."`
	Apply      applyCmd      `cmd:"" help:"Make jobs, schedules and calendars what a directory says."`
	Projector  projectorCmd  `cmd:"" help:"The read model: its copies, held against the log or built anew."`
	Events     eventsCmd     `cmd:"" help:"The log, as it happens."`
	Audit      auditCmd      `cmd:"" help:"What operators did: who, when, what, to what."`
	Dead       deadCmd       `cmd:"" help:"Messages that could not be processed."`
	Backup     backupCmd     `cmd:"" help:"Copy the whole system, log, buckets and objects, from its broker into a directory."`
	Restore    restoreCmd    `cmd:"" help:"Bring a backup back into an empty broker."`
	Broker     brokerCmd     `cmd:"" help:"Run the embedded broker alone."`
	Completion completionCmd `cmd:"" help:"Print the lines that teach a shell to complete kanade."`
	Version    versionCmd    `cmd:"" help:"Print the version."`
}

// app is what commands work with.
type app struct {
	*connection
	json     bool
	out, err io.Writer
}

// coded is an error with an exit code of its own.
type coded struct {
	code int
	error
}

func (c coded) Unwrap() error { return c.error }

// exited carries the exit code of what ends inside the parser, --help, out of it.
type exited int

// Run runs one command line (without the program's name) and gives the exit code. It ends when ctx does.
func Run(ctx context.Context, args []string, stdout, stderr io.Writer) (code int) {
	defer func() {
		if r := recover(); r != nil {
			e, ok := r.(exited)
			if !ok {
				panic(r)
			}
			code = int(e)
		}
	}()
	var g grammar
	a := &app{connection: &g.connection, out: stdout, err: stderr}
	parser, err := newParser(&g, a)
	if err != nil {
		return a.fail(err)
	}
	if complete(ctx, parser, a) {
		return 0
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	k, err := parser.Parse(args)
	if err != nil {
		return a.fail(usage(err))
	}
	a.json = g.JSON
	k.BindTo(ctx, (*context.Context)(nil))
	return a.fail(k.Run(a))
}

func newParser(g *grammar, a *app) (*kong.Kong, error) {
	return kong.New(g, kong.Name("kanade"),
		kong.Description("Runs jobs on fleets of endpoints. `kanade up --demo` shows it on this machine."),
		kong.Writers(a.out, a.err), kong.Exit(func(code int) { panic(exited(code)) }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true}),
	)
}

// note says on stderr what is no error, and no part of the answer.
func (a *app) note(text string, args ...any) {
	fmt.Fprintln(a.err, "kanade: note: "+cell(fmt.Sprintf(text, args...)))
}

// fail says what went wrong, if anything, and gives the exit code.
func (a *app) fail(err error) int {
	if err == nil {
		return 0
	}
	code := 1
	if c, ok := errors.AsType[coded](err); ok {
		code, err = c.code, c.error
	}
	if err != nil {
		for line := range strings.Lines(err.Error()) {
			fmt.Fprintln(a.err, "kanade: "+strings.TrimRight(line, "\n"))
		}
	}
	return code
}

// usage adds where to read on.
func usage(err error) error {
	command := "kanade"
	if p, ok := errors.AsType[*kong.ParseError](err); ok {
		if words := p.Context.Command(); words != "" {
			command += " " + strings.Join(plain(strings.Fields(words)), " ")
		}
	}
	return fmt.Errorf("%w\nsee `%s --help`", err, command)
}

// plain leaves the arguments out of a command's words.
func plain(words []string) []string {
	for i, w := range words {
		if strings.HasPrefix(w, "<") {
			return words[:i]
		}
	}
	return words
}

// executable is how this program is called in hints.
func executable() string {
	if strings.Contains(os.Args[0], "go-build") {
		return "go run ./cmd/kanade"
	}
	return "kanade"
}
