package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime"

	"github.com/spf13/cobra"

	"forebay/internal/config"
	"forebay/internal/node"
)

// loadConfig reads a configuration and checks all that can be checked without
// touching anything outside.
func loadConfig(path string) (*config.File, error) {
	file, err := node.Load(path)
	return file, configError(path, err)
}

// readConfig reads a configuration file for what it says of places: certificates and
// sinks are not looked at.
func readConfig(path string) (*config.File, error) {
	file, err := config.Load(path)
	return file, configError(path, err)
}

// configError gives the errors of reading a configuration their exit code.
func configError(path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &exitError{exitBadConfig, fmt.Errorf("there is no configuration %s: name one with --config FILE", path)}
	case err != nil && !errors.Is(err, config.ErrInvalid):
		return &exitError{exitBadConfig, err}
	}
	return err
}

func configFlag(c *cobra.Command, path *string) {
	c.Flags().StringVarP(path, "config", "c", "forebay.toml", "the configuration `FILE`")
}

func (p *program) validateCommand() *cobra.Command {
	var path string
	c := &cobra.Command{
		Use:   "validate",
		Short: "Check a configuration, mappings included, and touch nothing",
		Args:  exactly(),
		RunE: func(*cobra.Command, []string) error {
			if _, err := loadConfig(path); err != nil {
				return err
			}
			_, err := fmt.Fprintf(p.out, "%s is valid\n", path)
			return err
		},
	}
	configFlag(c, &path)
	return c
}

func (p *program) configCommand() *cobra.Command {
	return group("config", "Show the configuration", p.configShowCommand())
}

func (p *program) configShowCommand() *cobra.Command {
	var (
		r    remote
		path string
	)
	c := &cobra.Command{
		Use:   "show",
		Short: "The configuration with its defaults, secrets redacted: of a running node, or of a file with --config",
		Args:  exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			text, err := func() (string, error) {
				if !c.Flags().Changed("config") {
					return r.client().Config(c.Context())
				}
				file, err := loadConfig(path)
				if err != nil {
					return "", err
				}
				return file.Render()
			}()
			if err == nil {
				_, err = io.WriteString(p.out, text)
			}
			return err
		},
	}
	r.registerAddress(c)
	configFlag(c, &path)
	return c
}

func (p *program) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "The version of this program",
		Args:  exactly(),
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintf(p.out, "forebay %s (%s, %s/%s)\n", node.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}
