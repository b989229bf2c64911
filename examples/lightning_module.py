"""Attention on blocks, trained by Lightning: DGL samples neighbours, Lightning keeps the loop.

    pip install lightning
    python examples/lightning_module.py

Nodes of four communities, whose features tell little; their neighbours tell the rest.
"""

import hgat
import dgl
import lightning
import torch
import torch.nn.functional as F

NODES, CLASSES, WIDTH = 800, 4, 8


def communities(seed=0):
    """A graph whose links stay in one community four times in five, with features and a mask of training nodes."""
    torch.manual_seed(seed)
    label = torch.arange(NODES) % CLASSES
    src, dst = torch.randint(0, NODES, (2, 16 * NODES))
    near = (label[src] == label[dst]) | (torch.rand(len(src)) < 0.08)
    graph = dgl.add_self_loop(dgl.graph((src[near], dst[near]), num_nodes=NODES))
    graph.ndata["feat"] = torch.randn(NODES, WIDTH) + 0.7 * torch.eye(CLASSES, WIDTH)[label]
    graph.ndata["label"], graph.ndata["train"] = label, torch.rand(NODES) < 0.5
    return graph


class Classifier(lightning.LightningModule):
    """GAT on blocks: what a step is given is what DGL's DataLoader gives, with features and labels beside."""

    def __init__(self, lr=0.01):
        super().__init__()
        self.net, self.lr = hgat.models.GAT(WIDTH, CLASSES, heads=(4, 1), feat_drop=0.2, attn_drop=0.2), lr

    def transfer_batch_to_device(self, batch, device, index):
        return hgat.graph.to_device(batch, device)  # features move, blocks stay: DGL needs no code for the GPU

    def training_step(self, batch, number):
        blocks, feat, label = batch
        loss = F.cross_entropy(self.net(blocks, feat), label)
        self.log("loss", loss, batch_size=len(label))
        return loss

    def validation_step(self, batch, number):
        blocks, feat, label = batch
        right = (self.net(blocks, feat).argmax(1) == label).float().mean()
        self.log("val accuracy", right, batch_size=len(label))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.lr)


class Blocks:
    """Batches of (blocks, features of the sources, labels of the seeds), new ones in every epoch."""

    def __init__(self, graph, seeds, shuffle):
        sampler = dgl.dataloading.NeighborSampler([10, 10])
        self.graph = graph
        self.loader = dgl.dataloading.DataLoader(graph, seeds, sampler, batch_size=100, shuffle=shuffle)

    def __len__(self):
        return len(self.loader)

    def __iter__(self):
        for inputs, seeds, blocks in self.loader:
            yield blocks, self.graph.ndata["feat"][inputs], self.graph.ndata["label"][seeds]


def main(epochs=8, folder=None):
    """Accuracy on the nodes that were not trained on."""
    graph = communities()
    train = graph.ndata["train"].nonzero().flatten()
    rest = (~graph.ndata["train"]).nonzero().flatten()
    trainer = lightning.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder,
    )  # fmt: skip
    model = Classifier()
    trainer.fit(model, Blocks(graph, train, True), Blocks(graph, rest, False))
    accuracy = float(trainer.callback_metrics["val accuracy"])
    print(f"accuracy on {len(rest)} nodes that were not trained on: {100 * accuracy:.1f} percent; chance is 25")
    return accuracy


if __name__ == "__main__":
    main()
