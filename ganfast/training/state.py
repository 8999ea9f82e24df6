"""Everything that the future of a run depends on, built for one game and saved as a whole."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from ganfast.data.columns import Spec
from ganfast.data.loader import Loader
from ganfast.errors import InputError
from ganfast.fuse import fuse
from ganfast.recipes.base import Player, Recipe
from ganfast.training.ema import Average
from ganfast.training.gradients import FlatGradients
from ganfast.training.history import History
from ganfast.training.precision import Precision
from ganfast.training.running_means import RunningMeans


class RunState:
    """Networks and averages by name, optimisers and gradients by what they train, the recipe's tensors, counts.

    ``begin`` builds what a game needs; ``state_dict()`` is what a checkpoint holds; ``load_state_dict`` takes it up in
    place, so that a captured graph goes on. ``random`` has the global random states of each process, as last saved.

    Args:
        loaders: one for each source of data.
        seed: of latents.
        place: moves a network to the device and makes all processes have the same.
    """

    def __init__(
        self,
        loaders: Sequence[Loader],
        precision: Precision,
        seed: int = 0,
        ema_decay: float = 0.999,
        place: Callable[[nn.Module], nn.Module] = lambda network: network,
    ):
        self.loaders, self.precision, self.ema_decay, self.place = list(loaders), precision, ema_decay, place
        self.device = loaders[0].device
        self.noise = torch.Generator(self.device).manual_seed(seed)
        self.means = RunningMeans(self.device)
        self.count = torch.zeros((), device=self.device)  # of steps, exact up to 2^24
        self.step = 0
        self.stage = -1
        self.in_step = False  # or stopped in the midst of one, which leaves networks that nothing should go on from
        self.rollbacks = {"count": 0, "furthest": 0, "tries": 0}
        self.random: list[dict] = []
        self.networks: dict[str, nn.Module] = {}
        self.averages: dict[str, nn.Module] = {}

    def begin(self, game: Recipe, specs: Mapping[str, Spec], stage: int = 0) -> None:
        """Build the networks of ``game``, from torch's global generator, and what trains them.

        What networks of a stage before have under the same names is carried over; one that is not trained any more
        goes on as its average, which is what was shown and saved. Networks of torch's modules are fused.
        """
        self.game, self.specs, self.stage = game, specs, stage
        before = self.networks, self.averages
        built = game.build(specs)
        game.begin(built)
        self.networks = {name: self.place(network).train() for name, network in built.items()}
        for network in self.networks.values():
            fuse(network)  # as ganfast's own layers are already
        self.players = game.players()
        check(game, self.players, self.networks)
        trained = {name for player in self.players for name in player.trains}
        for name in self.networks.keys() - trained:
            self.networks[name].eval().requires_grad_(False)
        remedies = game.remedies
        remedies.attached_to(self.networks, game.judges, self.count)
        carry_over(before[0], self.networks)
        carry_over({name: net for name, net in before[1].items() if name not in trained}, self.networks)
        self.averages = {n: copy.deepcopy(self.networks[n]).eval().requires_grad_(False) for n in game.averaged}
        carry_over(before[1], self.averages)
        self.ema = [Average(self.averages[name], self.networks[name], self.ema_decay) for name in self.averages]
        self.gradients: dict[str, FlatGradients] = {}
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        for player in self.players:
            if player.loss is not None and key(player) not in self.optimizers:
                parameters = list(parameters_of(self.networks[name] for name in player.trains))
                self.gradients[key(player)] = FlatGradients(parameters)
                self.optimizers[key(player)] = (player.optimizer or game.adam())(parameters)
                if remedies.lr_d and set(player.trains) <= set(game.judges):
                    for group in self.optimizers[key(player)].param_groups:
                        group["lr"] = remedies.lr_d
        self.histories = {name: History(each, remedies.historical_averaging) for name, each in self.gradients.items()
                          if remedies.historical_averaging}  # fmt: skip
        self.rates = [pair for each in self.optimizers.values() for pair in rates_on_device(each, self.device)]
        self.tensors = {name: on_device(value, self.device) for name, value in game.state(specs).items()}

    def state_dict(self) -> dict:
        return {
            "networks": {name: network.state_dict() for name, network in self.networks.items()},
            "averages": {name: network.state_dict() for name, network in self.averages.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "tensors": self.tensors,
            "histories": {name: history.state_dict() for name, history in self.histories.items()},
            "noise": self.noise.get_state(),
            "precision": self.precision.state(),
            "means": self.means.state_dict(),
            "positions": [loader.position for loader in self.loaders],
            "step": self.step,
            "stage": self.stage,
            "rollbacks": self.rollbacks,
            "random": self.random,
        }

    def load_state_dict(self, state: dict) -> None:
        """Raises KeyError, ValueError or RuntimeError where ``state`` is not that of this game."""
        if int(state["stage"]) != self.stage:
            raise ValueError(f"it is of stage {state['stage']}, not {self.stage}")
        for mine, saved in ((self.networks, state["networks"]), (self.averages, state["averages"])):
            for name, network in mine.items():
                network.load_state_dict(saved[name])
        for name, optimizer in self.optimizers.items():
            load_optimizer(optimizer, state["optimizers"][name])
        for name, tensor in self.tensors.items():
            tensor.copy_(state["tensors"][name])
        for name, history in self.histories.items():
            history.load_state_dict(state["histories"][name])
        self.noise.set_state(state["noise"].cpu())
        self.precision.load_state(state["precision"])
        self.means.load_state_dict(state["means"])
        for loader, position in zip(self.loaders, state["positions"], strict=True):
            loader.position = int(position)
        self.step = int(state["step"])
        self.count.fill_(self.step)
        self.rollbacks = {name: int(state["rollbacks"][name]) for name in self.rollbacks}
        self.random = list(state["random"])

    def finite(self) -> Tensor:
        """Whether every number of networks and averages is finite, as a scalar on the device."""
        networks = [*self.networks.values(), *self.averages.values()]
        values = [value for network in networks for value in network.state_dict().values()]
        values += [tensor for tensor in self.tensors.values() if tensor.is_floating_point()]
        return torch.stack([value.isfinite().all() for value in values]).all()


def on_device(value: Tensor | float, device: torch.device) -> Tensor:
    """A copy of its own; numbers become fp32 scalars."""
    return torch.as_tensor(value, dtype=None if torch.is_tensor(value) else torch.float32).to(device).clone()


def key(player: Player) -> str:
    """The name of the optimiser that a player's networks share: ``D``, ``G+Q``."""
    return "+".join(sorted(player.trains))


def parameters_of(networks: Iterable[nn.Module]) -> Iterator[nn.Parameter]:
    """Each parameter once: networks may share some."""
    yield from dict.fromkeys(parameter for network in networks for parameter in network.parameters())


def check(game: Recipe, players: list[Player], networks: Mapping[str, nn.Module]) -> None:
    """``InputError`` where a recipe's parts do not fit each other."""
    for name in dict.fromkeys([*game.averaged, *(n for p in players for n in (*p.trains, *(p.keeps or ())))]):
        if name not in networks:
            raise InputError(f"recipe {game.name} names a network {name!r}, and its networks() are {[*networks]}.")
    names = [player.name for player in players if player.loss is not None]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"recipe {game.name} has two players that are called {name!r}: give one a name=.")
    first: dict[str, Player] = {}
    for player in players:
        if player.loss is None:
            continue
        if not player.trains:
            raise InputError(f"recipe {game.name}: a player with a loss trains nothing: name its networks.")
        owner = first.setdefault(key(player), player)
        if player.optimizer and owner is not player:
            raise InputError(
                f"recipe {game.name}: player {player.name} shares the optimiser of {owner.name}, which "
                "trains the same networks: leave out its optimizer=."
            )


def carry_over(before: Mapping[str, nn.Module], now: Mapping[str, nn.Module]) -> None:
    """Copy what networks of the same name have of the same name and shape."""
    for name in before.keys() & now.keys():
        own, old = now[name].state_dict(), before[name].state_dict()
        for each, value in own.items():
            if each in old and old[each].shape == value.shape:
                value.copy_(old[each])


def rates_on_device(optimizer: torch.optim.Optimizer, device: torch.device) -> list[tuple[Tensor, float]]:
    """Turn the learning rates into tensors read at each replay of a graph: (tensor, its first value) of each group."""
    rates = []
    for group in optimizer.param_groups:
        base = float(group["lr"])
        group["lr"] = torch.tensor(base, device=device)
        if "capturable" in group:
            group["capturable"] = device.type == "cuda"
        rates.append((group["lr"], base))
    return rates


def load_optimizer(optimizer: torch.optim.Optimizer, saved: dict) -> None:
    """Load the moments of ``saved`` into the memory that is there: a CUDA graph may read and write it.

    They come in their parameters' memory layout, which the next step's bits depend on. Options, such as rates, stay
    those of ``optimizer``: a person may have changed them.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    options = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    before = [dict(optimizer.state[p]) if p in optimizer.state else {} for p in parameters]
    state = {index: dict(moments) for index, moments in saved["state"].items()}
    for index, moments in state.items():
        for name, value in moments.items():
            if torch.is_tensor(value) and value.shape == parameters[index].shape:
                moments[name] = torch.empty_like(parameters[index]).copy_(value)
    optimizer.load_state_dict({**saved, "state": state})
    for group, own in zip(optimizer.param_groups, options):
        group.update(own)
    for parameter, moments in zip(parameters, before):
        for name, value in moments.items():
            if torch.is_tensor(value):
                optimizer.state[parameter][name] = value.copy_(optimizer.state[parameter][name])
