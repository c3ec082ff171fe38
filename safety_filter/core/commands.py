"""Subcommands of `safety-filter` that need nothing but the core."""

from __future__ import annotations

import argparse
from pathlib import Path


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the core's subcommands."""
    fit = subparsers.add_parser(
        'fit-robot', help='cover the collision meshes of a URDF with spheres')
    fit.add_argument('urdf', type=Path, nargs='?',
                     help='URDF file; without it the one that the robot file names')
    fit.add_argument('-o', '--out', type=Path, required=True,
                     help='robot file to write; if it exists, only its bodies are replaced')
    fit.add_argument('--spheres', type=int, default=40, help='most spheres to use (40)')
    fit.add_argument('--mesh-dir', type=Path, action='append', default=[],
                     help='where package:// meshes are, beside the folder of the URDF and the'
                          ' packages of a sourced ROS')
    fit.add_argument('--count', action='append', default=[], metavar='LINK=N',
                     help='number of spheres of one link; may be repeated')
    fit.set_defaults(run=_fit_robot)


def _fit_robot(args: argparse.Namespace) -> int:
    from safety_filter.core.fit_robot import fit_robot, write_robot
    from safety_filter.core.mesh import MeshError, share_folders
    from safety_filter.core.robot import RobotError, read_config, urdf_path
    try:
        counts = {link: int(n) for link, n in (pair.split('=') for pair in args.count)}
        known = read_config(args.out) if args.out.exists() else {}
        urdf = args.urdf or urdf_path(known)
        folders = [*args.mesh_dir, *share_folders()]
        spec = fit_robot(urdf, args.spheres, folders, known, counts)
        spec['fit'] = {'command': _command(args), **spec['fit']}
        write_robot(spec, args.out)
    except (RobotError, MeshError, ValueError) as error:
        print(f'fit-robot: {error}')
        return 1
    print(f'{args.out}: {len(spec["bodies"])} links, '
          f'{len(spec["self_pairs"])} self-collision pairs')
    for key, value in spec['fit'].items():
        print(f'  {key.replace("_", " ")}: {value}')
    return 0


def _command(args: argparse.Namespace) -> str:
    """Return the command that writes the same bodies again, its files by their names alone."""
    words = ['safety-filter fit-robot', *([args.urdf.name] if args.urdf else []),
             f'-o {args.out.name}', f'--spheres {args.spheres}']
    return ' '.join([*words, *(f'--count {pair}' for pair in args.count)])
