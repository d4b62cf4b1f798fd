"""Punctuated Mandarin text for punctuation models, from a seeded grammar of our own: no corpus is copied.

The marks ， 。 ？ 、 mostly follow from the words (question words and particles, pairs of conjunctions,
openers, enumerations), and where people themselves hesitate they do not: after a time phrase, between
clauses that only stand side by side, after `说`, with `吧`. A perfect score is therefore out of reach. A
sentence belongs to one split, or to the training of the miniatures, by the digest of its text, so no seed
puts it in two.
"""

# ruff: noqa: RUF001, RUF002  the marks are Chinese

from __future__ import annotations

import functools
import hashlib
import re
from bisect import bisect
from pathlib import Path
from typing import Literal

import numpy as np

from stages.core.params.section import Split
from stages.corpora.manifest import SPLITS, Line, seeds, write

SENTENCES = (2, 6)  # of a paragraph, both included
Owner = Split | Literal["training"]
OWNERS: tuple[Owner, ...] = ("training", "training", "training", *SPLITS)
FINAL_SHARE = 1 / 4  # of what would be the evaluation's
PARTS: tuple[Owner, ...] = (*OWNERS, "final")  # in the order of their seeds

# name: alternatives, each with its weight before a colon where that is not 1; {name} is expanded in turn.
GRAMMAR = """
sentence: 9:{statement}。 | 4:{question}？ | 1:{suggestion}
statement: 5:{clause} | 4:{opener}{clause} | 6:{pair} | 5:{clause}，{follow} | 2:{who}{says}{clause} | 3:{embedded} | 1:{topic} | 1:{story}
clause: 4:{who}{pred} | 2:{who}{time}{pred} | 2:{time}{who}{pred} | 2:{phrase}{maybe}{who}{pred} | 1:{name}{time}{pred}
follow: 3:然后{vp} | 2:也{vp} | 2:还{vp} | 2:{vp} | 1:{who}{vp} | 1:接着又{vp}
pair: 3:因为{clause}，所以{clause} | 2:虽然{clause}，但是{clause} | 2:如果{who}{vp}，{who}就{vp} | 只要{who}{vp}，{who}就{vp} | 不但{who}{vp}，而且{name}也{vp} | 2:{clause}，所以{clause} | 2:{clause}，不过{clause} | 由于{clause}，{clause} | 即使{clause}，{who}也{vp} | {who}一{vp}，{who}就{vp} | 除非{clause}，否则{who}不会{vp}
embedded: {who}不知道{who}为什么{vp} | {who}想知道谁{vp} | 我忘了{who}什么时候{vp} | 没有人告诉{who}会议几点开始 | {who}还没想好要不要{vp} | {who}明白{who}怎么{vp}
topic: {thing}{maybe}{who}已经{deal}好了 | 关于{thing}，{who}明天再{vp}
story: {clause}{steps}
steps: 17:，{step}{steps} | 1:，最后{vp}
step: 3:然后{vp} | 3:接着{vp} | 2:再{vp} | 2:又{vp} | 2:{vp} | 1:{who}{vp}
question: 4:{who}{pred}吗 | 2:{who}什么时候{vp} | 2:{who}为什么{vp} | 谁{vp} | {who}去哪里{work} | {item}多少钱 | 2:{who}要不要{vp} | {who}是不是{vp} | 2:{clause}，对吗 | {clause}，好不好 | {name}，你{vp}吗 | {name}，{who}怎么{vp} | 会议几点开始 | 那{who}呢 | {who}能不能{vp} | {who}和{name}谁{vp} | {clause}，{who}呢
suggestion: 3:我们{vp}吧。 | 2:大家{vp}吧。 | 你{vp}吧。 | 你{vp}吧？ | {name}，你{vp}吧。 | 2:请{vp}。 | 别{vp}。
opener: 首先， | 其次， | 总之， | 另外， | 对了， | 好的， | 说实话， | 一般来说， | 其实{maybe} | 当然{maybe} | 可是 | 于是{maybe}
says: 4:说， | 说 | 2:告诉{who}， | 觉得 | 2:认为
maybe: 4:， | 1:
phrase: 吃完饭以后 | 下班的时候 | 开会之前 | {vp}以后 | {vp}的时候 | 在{place} | 为了{deal}{thing}
pred: 3:{vp} | 2:{adv}{vp} | {vp}了 | 没有{vp} | 不想{vp} | 打算{vp} | {adv}很{feel}
vp: 3:去{place} | 2:去{place}{work} | 2:在{place}{work} | 4:{deal}{thing} | 3:买{items} | 学{langs} | 带着{items}去{place} | 给{who}打电话 | 把{thing}发给{who} | 用{tool}{deal}{thing} | 花了{number}块钱 | 等了{number}分钟 | 参观{places} | 邀请{people} | 请{who}{deal}{thing} | 坐{number}路车去{place} | {work}
items: 3:{item} | 2:{item}和{item} | 3:{item}、{item}和{item} | 2:{item}、{item}、{item} | {item}、{item}、{item}和{item}
langs: 2:{lang} | {lang}和{lang} | 2:{lang}、{lang}和{lang}
places: {place} | {place}和{place} | 2:{place}、{place}和{place}
people: {name} | {name}和{name} | 2:{name}、{name}和{name} | {name}、{name}、{name}
work: 上班 | 开会 | 吃饭 | 休息 | 跑步 | 看电影 | 见朋友 | 写作业 | 散步 | 唱歌 | 帮忙 | 找工作
deal: 讨论 | 检查 | 准备 | 整理 | 修改 | 完成 | 研究 | 介绍 | 处理 | 打印 | 更新 | 测试 | 安排 | 提交
thing: {owner}{object} | {object} | 第{number}份{object} | {number}年的{object}
owner: 新的 | 这个 | 那个 | 公司的 | 客户的 | 学生的 | {name}的
object: 报告 | 方案 | 预算 | 合同 | 材料 | 数据 | 文件 | 计划 | 问题 | 系统 | 项目 | 设备 | 代码 | 网站 | 表格 | 课程 | 名单 | 邮件 | 软件
who: 4:我 | 3:你 | 3:他 | 3:她 | 3:我们 | 2:他们 | 大家 | {name}
name: 小王 | 老张 | 李老师 | 陈经理 | 妈妈 | 爸爸 | 刘医生 | 同学 | 邻居 | 司机 | 客人 | 哥哥 | 妹妹 | 周律师 | 赵师傅 | tom | lucy | 孙女士
time: 今天 | 昨天 | 明天 | 刚才 | 现在 | 下午 | 早上 | 晚上 | 周末 | 上周 | 下个月 | 去年 | 月底 | {number}号
place: 公司 | 学校 | 医院 | 车站 | 机场 | 图书馆 | 超市 | 公园 | 银行 | 北京 | 上海 | 广州 | 深圳 | 杭州 | 家里 | 教室 | 酒店 | 体育馆 | 海边
item: 苹果 | 香蕉 | 橙子 | 葡萄 | 西瓜 | 牛奶 | 面包 | 鸡蛋 | 衣服 | 书包 | 铅笔 | 雨伞 | 手机 | 电脑 | 蛋糕 | 茶叶 | 咖啡 | 毛巾 | ipad
lang: 英语 | 法语 | 日语 | 德语 | python | java | 数学 | 音乐 | 画画 | 游泳
tool: excel | word | python | 电脑 | 手机 | linux | wifi | app
adv: 已经 | 正在 | 马上 | 经常 | 终于 | 可能 | 一定 | 突然 | 一直 | 应该 | 都 | 只好
feel: 高兴 | 着急 | 累 | 担心 | 满意 | 激动 | 难过 | 忙
number: 2 | 3 | 5 | 8 | 10 | 12 | 15 | 20 | 30 | 100 | 2024 | 2025 | {digit}{digit}{digit} | 十 | 两 | 六
digit: 1 | 4 | 6 | 7 | 9
"""  # noqa: E501  an alternative more is a word more, not a line


def make(seed: int, items: dict[Split, int], folder: Path) -> None:
    """Write the manifests: `items` of a split is its number of paragraphs. The same seed gives the same bytes."""
    for split, count in items.items():
        texts = paragraphs(split, seed, count)
        write(folder, split, [Line(id=f"{split}-{n:03d}", text=text) for n, text in enumerate(texts)])


def paragraphs(owner: Owner, seed: int, count: int) -> list[str]:
    """Draw punctuated paragraphs of 2 to 6 sentences that only `owner` has."""
    rng = np.random.default_rng(seeds(seed, PARTS, owner))
    low, high = SENTENCES
    return ["".join(_sentence(owner, rng) for _ in range(rng.integers(low, high + 1))) for _ in range(count)]


def _sentence(owner: str, rng: np.random.Generator) -> str:
    while True:
        text = _expand("sentence", rng)
        if _owner(text) == owner:
            return text


def _owner(sentence: str) -> Owner:
    """Return the split, or the training, that a sentence belongs to."""
    digest = hashlib.sha256(sentence.encode()).digest()
    owner = OWNERS[int.from_bytes(digest[:4]) % len(OWNERS)]
    return "final" if owner == "evaluation" and digest[4] < 256 * FINAL_SHARE else owner


def _expand(name: str, rng: np.random.Generator) -> str:
    """Expand the rule `name` of the grammar into a text, drawing no alternative twice for one rule, as in a list."""
    texts, limits = _rules()[name]
    expanded, again = "", True
    while again:
        text = texts[bisect(limits, rng.random())]
        again = text.endswith(f"{{{name}}}")
        expanded += _fill(text.removesuffix(f"{{{name}}}"), rng)
    return expanded


def _fill(text: str, rng: np.random.Generator) -> str:
    """Expand the rules in an alternative, drawing no text twice for one rule, as in a list."""
    drawn: set[str] = set()

    def one(match: re.Match[str]) -> str:
        text = next(t for t in iter(lambda: _expand(match[1], rng), None) if t not in drawn or not t)
        drawn.add(text)
        return text

    return re.sub(r"\{(\w+)\}", one, text)


@functools.cache
def _rules() -> dict[str, tuple[list[str], list[float]]]:
    """Parse each rule into its alternatives and the upper limit of each one's share of [0, 1)."""
    rules = {}
    for line in GRAMMAR.strip().splitlines():
        name, alternatives = line.split(": ", 1)
        weighted = [re.fullmatch(r"(?:(\d+):)?(.*)", a.strip()) for a in alternatives.split("|")]
        weights = np.array([float(m[1] or 1) for m in weighted if m])
        rules[name] = ([m[2] for m in weighted if m], (np.cumsum(weights) / weights.sum()).tolist())
    return rules
